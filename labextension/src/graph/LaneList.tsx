/** The lineage as a list: one row for each node, lanes beside it. Only the rows in sight are in the page. */

import * as React from 'react';
import { count, duration, money, oneLine, short } from '../format';
import { Chevron, StatusIcon } from '../icons';
import { Text } from '../text';
import { kindWord, spoken, statusOf, type TreeProps } from './Graph';
import { lanesOf, type Row } from './lanes';
import { visibleLinks } from './tree';

const ROW = 30;
const LANE = 14;
const OVERSCAN = 8;
/** Below this many rows the list is as tall as they are; above it scrolls in itself. */
const TALL = 16;

export function LaneList(props: TreeProps): JSX.Element {
  const { tree, visible, keys } = props;
  const lanes = React.useMemo(() => {
    const ids = visible.map(b => b.node.node_id);
    return lanesOf(ids, visibleLinks(tree, visible));
  }, [tree, visible]);
  const area = React.useRef<HTMLDivElement>(null);
  const [view, setView] = React.useState({ top: 0, height: TALL * ROW });
  const look = React.useCallback(() => {
    const element = area.current;
    if (element) setView({ top: element.scrollTop, height: element.clientHeight });
  }, []);
  React.useLayoutEffect(() => {
    look();
    const watch = new ResizeObserver(look);
    if (area.current) watch.observe(area.current);
    return () => watch.disconnect();
  }, [look]);
  const at = visible.findIndex(b => b.node.node_id === keys.active);
  React.useEffect(() => {
    const element = area.current;
    if (!element || at < 0 || !element.contains(document.activeElement)) return;
    if (at * ROW < element.scrollTop) element.scrollTop = at * ROW;
    else if ((at + 1) * ROW > element.scrollTop + element.clientHeight) element.scrollTop = (at + 1) * ROW - element.clientHeight;
  }, [at]);
  const first = Math.max(0, Math.floor(view.top / ROW) - OVERSCAN);
  const last = Math.min(visible.length, Math.ceil((view.top + view.height) / ROW) + OVERSCAN);
  const rows: number[] = [];
  if (at >= 0 && (at < first || at >= last)) rows.push(at);
  for (let i = first; i < last; i += 1) rows.push(i);
  return (
    <div
      ref={area}
      className="kt-lanes"
      role="tree"
      aria-label="Lineage"
      tabIndex={0}
      aria-activedescendant={keys.active ? keys.idOf(keys.active) : undefined}
      onKeyDown={keys.onKeyDown}
      onScroll={look}
    >
      <div className="kt-lanes-page" role="presentation" style={{ height: visible.length * ROW }}>
        {rows.map(i => (
          <LaneRow key={visible[i]!.node.node_id} {...props} index={i} row={lanes.rows[i]!} lanes={lanes.width} />
        ))}
      </div>
    </div>
  );
}

function LaneRow(props: TreeProps & { index: number; row: Row; lanes: number }): JSX.Element {
  const branch = props.visible[props.index]!;
  const { node } = branch;
  const id = node.node_id;
  const open = branch.children.length > 0 && !props.closed.has(id);
  const chosen = id === props.selected;
  const status = statusOf(branch);
  const classes = ['kt-row', `kt-is-${status}`];
  if (chosen) classes.push('kt-selected');
  if (id === props.keys.active) classes.push('kt-active');
  return (
    <div
      id={props.keys.idOf(id)}
      className={classes.join(' ')}
      role="treeitem"
      aria-label={spoken(branch)}
      aria-selected={chosen}
      aria-level={branch.depth + 1}
      aria-setsize={props.visible.length}
      aria-posinset={props.index + 1}
      aria-expanded={branch.children.length ? open : undefined}
      style={{ top: props.index * ROW, height: ROW }}
      onClick={() => props.onSelect(id)}
    >
      <LaneGutter row={props.row} lanes={props.lanes} />
      <span className="kt-row-indent" style={{ width: Math.min(branch.depth, 12) * 14 }} />
      <span
        className={`kt-row-fold${branch.children.length ? '' : ' kt-none'}`}
        onClick={event => {
          if (!branch.children.length) return;
          event.stopPropagation();
          props.toggle(id, !open);
        }}
      >
        {branch.children.length ? <Chevron open={open} /> : null}
      </span>
      <StatusIcon status={status} />
      <span className="kt-row-name">
        <Text>{oneLine(node.selector, 160)}</Text>
        {branch.children.length && !open ? <span className="kt-row-inside">{count(branch.inside)}</span> : null}
      </span>
      {node.kind !== 'checkpoint' || node.type ? <span className="kt-chip">{kindWord(branch)}</span> : null}
      <span className="kt-row-fact kt-row-tokens">{branch.tokens ? `${short(branch.tokens)} tok` : ''}</span>
      <span className="kt-row-fact kt-row-cost">{money(branch.cost)}</span>
      <span className="kt-row-fact kt-row-time">{node.kind === 'checkpoint' ? duration(node.duration) : ''}</span>
    </div>
  );
}

const middle = (lane: number): number => lane * LANE + LANE / 2;

const LaneGutter = React.memo(function LaneGutter(props: { row: Row; lanes: number }): JSX.Element {
  const { lane, through, into, out } = props.row;
  const x = middle(lane);
  const half = ROW / 2;
  return (
    <svg className="kt-gutter" width={props.lanes * LANE + 4} height={ROW} aria-hidden="true">
      {through.map(l => (
        <path key={`t${l}`} className={`kt-lane kt-lane-${l % 4}`} d={`M${middle(l)} 0V${ROW}`} />
      ))}
      {into.map(({ lane: from, on, dashed }) => (
        <React.Fragment key={`i${from}`}>
          <path
            className={`kt-lane kt-lane-${from % 4}${dashed ? ' kt-dashed' : ''}`}
            d={from === lane ? `M${x} 0V${half}` : `M${middle(from)} 0C${middle(from)} ${half * 0.8} ${x} ${half * 0.4} ${x} ${half}`}
          />
          {on ? <path className={`kt-lane kt-lane-${from % 4}`} d={`M${middle(from)} 0V${ROW}`} /> : null}
        </React.Fragment>
      ))}
      {out ? <path className={`kt-lane kt-lane-${lane % 4}`} d={`M${x} ${half}V${ROW}`} /> : null}
      <circle className="kt-dot" cx={x} cy={half} r={into.length || out ? 3.2 : 2} />
    </svg>
  );
});
