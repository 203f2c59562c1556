/** A replay: where it begins, what it would run again and what it saves; then the new execution. */

import * as React from 'react';
import { count, counted, duration, money } from '../format';
import { useHost } from '../hooks';
import type { ReplayPreview } from '../model';
import { Text } from '../text';
import { Problem, useAction } from './parts';

const NAMES = 12;

export function Replay(props: { execId: string; from: string; onClose(): void }): JSX.Element {
  const { execId } = props;
  const host = useHost();
  const [from, setFrom] = React.useState(props.from);
  const [scope, setScope] = React.useState<'downstream' | 'after'>('downstream');
  const [planned, setPlanned] = React.useState<{ of: string; plan: ReplayPreview } | null>(null);
  const action = useAction();
  const request = { from: from.split(',').map(s => s.trim()).filter(Boolean), scope };
  // A plan that comes late may be of something else than what is asked for by now.
  const asked = JSON.stringify(request);
  const plan = planned?.of === asked ? planned.plan : null;
  const top = React.useRef<HTMLElement>(null);
  const look = (): void => action.run(async () => setPlanned({ of: asked, plan: await host.api.replayPlan(execId, request) }));
  const start = (): void =>
    action.run(async () => {
      const started = await host.api.replay(execId, request);
      props.onClose();
      host.open(started.exec_id);
    });
  React.useEffect(() => {
    if (props.from) look();
    top.current?.scrollIntoView({ block: 'nearest' });
    // What is typed afterwards is planned by the button.
  }, []);
  return (
    <section className="kt-callout kt-replay" aria-label="Replay" ref={top}>
      <form
        className="kt-inline"
        onSubmit={event => {
          event.preventDefault();
          look();
        }}
      >
        <label>
          Replay from{' '}
          <input className="kt-input" value={from} placeholder="checkpoint, or several with commas" onInput={e => setFrom((e.target as HTMLInputElement).value)} />
        </label>
        <label>
          run again{' '}
          <select className="kt-input" value={scope} onChange={e => setScope((e.target as HTMLSelectElement).value as 'downstream')}>
            <option value="downstream">it and what depends on it</option>
            <option value="after">it and all that came later</option>
          </select>
        </label>
        <button type="submit" className="kt-button" disabled={action.busy || !request.from.length}>
          Show the plan
        </button>
        <button type="button" className="kt-button kt-primary" disabled={action.busy || !plan} onClick={start}>
          Start
        </button>
        <button type="button" className="kt-link" onClick={props.onClose}>
          Close
        </button>
      </form>
      {action.error ? <Problem error={action.error} /> : null}
      {plan ? <Plan plan={plan} /> : null}
    </section>
  );
}

function Plan(props: { plan: ReplayPreview }): JSX.Element {
  const { plan } = props;
  const saved = [duration(plan.seconds_saved), plan.tokens_saved ? counted(plan.tokens_saved, 'token') : '', money(plan.cost_saved)].filter(Boolean);
  return (
    <ul className="kt-plan">
      <PlanLine word="runs again" names={plan.runs} />
      <PlanLine word="entered" names={plan.enters} />
      <PlanLine word="reused" names={plan.reused} />
      <PlanLine word="asks again" names={plan.asks} />
      {saved.length ? <li>saves {saved.join(', ')}</li> : null}
    </ul>
  );
}

function PlanLine(props: { word: string; names: string[] }): JSX.Element | null {
  const { names } = props;
  if (!names.length) return null;
  const more = names.length > NAMES ? ` and ${count(names.length - NAMES)} more` : '';
  return (
    <li>
      <strong>{props.word}</strong> <Text>{names.slice(0, NAMES).join(', ') + more}</Text>
    </li>
  );
}
