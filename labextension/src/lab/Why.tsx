/** Why a cell has its badge: a small card beside it. */

import * as React from 'react';
import { ReactWidget } from '@jupyterlab/ui-components';
import { Widget } from '@lumino/widgets';
import { duration } from '../format';
import { Text } from '../text';
import type { Badge } from './cells';

const WIDTH = 300;

export interface WhyActions {
  open(): void;
  run(): void;
}

let closeShown = (): void => undefined;

/** Show the card; a click elsewhere or Escape closes it and gives the focus back. */
export function explain(badge: Badge, anchor: HTMLElement, actions: WhyActions): void {
  closeShown();
  const close = (): void => {
    document.removeEventListener('pointerdown', outside, true);
    document.removeEventListener('keydown', escape, true);
    if (!card.isDisposed) card.dispose();
  };
  const outside = (event: Event): void => {
    if (!card.node.contains(event.target as Node)) close();
  };
  const escape = (event: KeyboardEvent): void => {
    if (event.key !== 'Escape') return;
    event.stopPropagation();
    close();
    anchor.focus();
  };
  const act = (action: () => void) => (): void => {
    close();
    action();
  };
  const card = ReactWidget.create(<Why badge={badge} open={act(actions.open)} run={act(actions.run)} />);
  card.addClass('kt-app');
  card.addClass('kt-why');
  const place = anchor.getBoundingClientRect();
  card.node.style.width = `${WIDTH}px`;
  card.node.style.left = `${Math.max(8, Math.min(place.left, window.innerWidth - WIDTH - 8))}px`;
  card.node.style.top = `${Math.min(place.bottom + 4, window.innerHeight - 160)}px`;
  card.node.setAttribute('role', 'dialog');
  card.node.setAttribute('aria-label', 'Why this badge');
  closeShown = close;
  Widget.attach(card, document.body);
  document.addEventListener('pointerdown', outside, true);
  document.addEventListener('keydown', escape, true);
  void card.renderPromise?.then(() => card.node.querySelector('button')?.focus());
}

function Why(props: { badge: Badge; open(): void; run(): void }): JSX.Element {
  const { badge } = props;
  const { recorded } = badge;
  return (
    <>
      <p>
        <strong>
          <Text>{recorded?.checkpoint ?? 'Checkpoint'}</Text>
        </strong>{' '}
        is {badge.state}
      </p>
      <p>
        <Text>{badge.why}</Text>
      </p>
      {recorded?.seconds != null && badge.state === 'cached' ? <p className="kt-mute">{duration(recorded.seconds)} saved</p> : null}
      <div className="kt-buttons">
        {recorded ? (
          <button type="button" className="kt-button kt-small" onClick={props.open}>
            Show in the panel
          </button>
        ) : null}
        {badge.state === 'stale' || badge.state === 'failed' ? (
          <button type="button" className="kt-button kt-small" onClick={props.run}>
            Run from here
          </button>
        ) : null}
      </div>
    </>
  );
}
