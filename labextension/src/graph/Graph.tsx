/** The lineage of an execution: layered drawing for what fits, a list with lanes for everything else. */

import * as React from 'react';
import type { ExecutionGraph } from '../model';
import { count, duration, money, oneLine, short, visible } from '../format';
import { useUniqueId } from '../hooks';
import { Chevron, StatusIcon, statusWord, typeWord } from '../icons';
import { Text } from '../text';
import { LaneList } from './LaneList';
import { curve, layeredOf, MOST_LAYERED, type Drawing } from './layered';
import { closedAtFirst, treeOf, visibleOf, type Branch, type Tree } from './tree';

export interface GraphProps {
  graph: ExecutionGraph;
  selected: string | null;
  onSelect(id: string): void;
  /** Narrow places show the list only. */
  narrow?: boolean;
}

type View = 'drawing' | 'list';

export function Graph(props: GraphProps): JSX.Element {
  const tree = React.useMemo(() => treeOf(props.graph), [props.graph]);
  const [toggled, setToggled] = React.useState<ReadonlyMap<string, boolean>>(new Map());
  const [chosen, setChosen] = React.useState<View | null>(null);
  const closed = React.useMemo(() => closedOf(tree, toggled), [tree, toggled]);
  const visible = React.useMemo(() => visibleOf(tree, closed), [tree, closed]);
  const drawable = visible.length <= MOST_LAYERED && !props.narrow;
  const view: View = drawable ? (chosen ?? 'drawing') : 'list';
  const branches = [...tree.byId.values()].filter(b => b.children.length);

  const toggle = React.useCallback((id: string, open: boolean) => setToggled(old => new Map(old).set(id, open)), []);
  const all = (open: boolean): void => setToggled(new Map(branches.map(b => [b.node.node_id, open])));
  const keys = useTreeKeys(tree, visible, closed, props.selected, props.onSelect, toggle);

  if (tree.byId.size === 0) return <p className="kt-empty">No checkpoints yet.</p>;
  const shared: TreeProps = { tree, visible, closed, selected: props.selected, onSelect: props.onSelect, toggle, keys };
  return (
    <div className="kt-graph">
      <div className="kt-graph-bar">
        <span className="kt-mute">{summary(tree)}</span>
        <span className="kt-spring" />
        {branches.length ? (
          <button type="button" className="kt-link" onClick={() => all(visible.length < tree.byId.size)}>
            {visible.length < tree.byId.size ? 'Open all' : 'Close all'}
          </button>
        ) : null}
        {props.narrow ? null : (
          <div className="kt-segments" role="group" aria-label="View">
            <button type="button" aria-pressed={view === 'drawing'} disabled={!drawable} title={drawable ? undefined : `A drawing has at most ${MOST_LAYERED} nodes.`} onClick={() => setChosen('drawing')}>
              Graph
            </button>
            <button type="button" aria-pressed={view === 'list'} onClick={() => setChosen('list')}>
              List
            </button>
          </div>
        )}
      </div>
      {view === 'drawing' ? <Layered {...shared} /> : <LaneList {...shared} />}
    </div>
  );
}

function summary(tree: Tree): string {
  let calls = 0;
  let reused = 0;
  for (const { node } of tree.byId.values()) {
    if (node.kind !== 'checkpoint') continue;
    calls += 1;
    if (node.status === 'reused') reused += 1;
  }
  const tokens = tree.roots.reduce((sum, b) => sum + b.tokens, 0);
  const cost = money(tree.roots.reduce((sum, b) => sum + b.cost, 0));
  const parts = [`${count(calls)} ${calls === 1 ? 'checkpoint' : 'checkpoints'}`];
  if (reused) parts.push(`${count(reused)} reused`);
  if (tokens) parts.push(`${count(tokens)} tokens`);
  if (cost) parts.push(cost);
  return parts.join(' · ');
}

/** What is closed: as chosen by hand, else as it begins; a branch that waits or failed inside is opened by that. */
function closedOf(tree: Tree, toggled: ReadonlyMap<string, boolean>): Set<string> {
  const closed = closedAtFirst(tree);
  for (const [id, open] of toggled) {
    if (open) closed.delete(id);
    else if (tree.byId.get(id)?.children.length) closed.add(id);
  }
  return closed;
}

export interface TreeProps {
  tree: Tree;
  visible: Branch[];
  closed: ReadonlySet<string>;
  selected: string | null;
  onSelect(id: string): void;
  toggle(id: string, open: boolean): void;
  keys: TreeKeys;
}

export interface TreeKeys {
  active: string | null;
  setActive(id: string): void;
  onKeyDown(event: React.KeyboardEvent): void;
  idOf(node: string): string;
}

/** Keys of a tree: arrows move and open, Home and End jump, Enter and Space select. */
function useTreeKeys(
  tree: Tree,
  visible: Branch[],
  closed: ReadonlySet<string>,
  selected: string | null,
  onSelect: (id: string) => void,
  toggle: (id: string, open: boolean) => void
): TreeKeys {
  const base = useUniqueId('node');
  // Where the keys have moved to, until something else is selected.
  const [moved, setMoved] = React.useState<{ to: string; from: string | null } | null>(null);
  const setActive = (to: string): void => setMoved({ to, from: selected });
  const places = React.useMemo(() => new Map(visible.map((b, i) => [b.node.node_id, i])), [visible]);
  const active = [moved?.from === selected ? moved.to : null, selected].find(id => id !== null && places.has(id)) ?? visible[0]?.node.node_id ?? null;
  const onKeyDown = (event: React.KeyboardEvent): void => {
    if (active === null || event.altKey || event.ctrlKey || event.metaKey) return;
    const at = places.get(active)!;
    const branch = visible[at]!;
    const open = branch.children.length > 0 && !closed.has(active);
    const go = (i: number): void => setActive(visible[Math.max(0, Math.min(visible.length - 1, i))]!.node.node_id);
    if (event.key === 'ArrowDown') go(at + 1);
    else if (event.key === 'ArrowUp') go(at - 1);
    else if (event.key === 'PageDown') go(at + 10);
    else if (event.key === 'PageUp') go(at - 10);
    else if (event.key === 'Home') go(0);
    else if (event.key === 'End') go(visible.length - 1);
    else if (event.key === 'Enter' || event.key === ' ') onSelect(active);
    else if (event.key === 'ArrowRight') {
      if (open) go(at + 1);
      else if (branch.children.length) toggle(active, true);
    } else if (event.key === 'ArrowLeft') {
      if (open) toggle(active, false);
      else if (branch.node.parent !== null && tree.byId.has(branch.node.parent)) setActive(branch.node.parent);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return { active, setActive, onKeyDown, idOf: node => `${base}-${places.get(node) ?? 'x'}` };
}

/** What a screen reader says of a node. */
export function spoken(branch: Branch): string {
  const { node } = branch;
  const parts = [visible(oneLine(node.selector, 80))];
  if (node.kind !== 'checkpoint') parts.push(node.kind);
  else if (node.type) parts.push(typeWord(node.type));
  if (node.kind !== 'input') parts.push(statusWord(statusOf(branch)));
  if (node.duration !== null) parts.push(duration(node.duration));
  if (branch.tokens) parts.push(`${count(branch.tokens)} tokens`);
  if (branch.cost) parts.push(money(branch.cost));
  if (branch.inside) parts.push(`${count(branch.inside)} inside`);
  return parts.join(', ');
}

/** A pending wait is no pending checkpoint: a person is asked. */
export function statusOf(branch: Branch): string {
  const { kind, status } = branch.node;
  if (kind === 'wait' && status === 'pending') return 'asked';
  return kind === 'input' ? kind : status;
}

/** Seconds, tokens and cost, as far as there are any. */
export function facts(branch: Branch): string {
  const { node } = branch;
  const parts = [node.kind === 'checkpoint' ? duration(node.duration) : ''];
  if (branch.tokens) parts.push(`${short(branch.tokens)} tok`);
  if (branch.cost) parts.push(money(branch.cost));
  return parts.filter(Boolean).join(' · ');
}

export function kindWord(branch: Branch): string {
  return branch.node.kind === 'checkpoint' ? typeWord(branch.node.type) : branch.node.kind;
}

const MARGIN = 16;
const ZOOMS = [0.4, 0.55, 0.75, 1, 1.25];
/** A drawing that is too wide is made smaller down to here; then it scrolls. */
const LEAST_FIT = 0.75;

function Layered(props: TreeProps): JSX.Element {
  const drawing = React.useMemo(() => layeredOf(props.tree, props.closed), [props.tree, props.closed]);
  const area = React.useRef<HTMLDivElement>(null);
  const [zoom, setZoom] = React.useState<number | null>(null);
  const [room, setRoom] = React.useState(0);
  const width = drawing.width + 2 * MARGIN;
  const height = drawing.height + 2 * MARGIN;
  React.useLayoutEffect(() => {
    const element = area.current;
    if (!element) return undefined;
    const measure = (): void => setRoom(element.clientWidth);
    measure();
    const watch = new ResizeObserver(measure);
    watch.observe(element);
    return () => watch.disconnect();
  }, []);
  const fit = room ? Math.min(1, Math.max(LEAST_FIT, room / width)) : 1;
  const scale = zoom ?? fit;
  const step = (by: 1 | -1): void => {
    const next = by > 0 ? ZOOMS.find(z => z > scale + 0.01) : [...ZOOMS].reverse().find(z => z < scale - 0.01);
    if (next) setZoom(next);
  };
  const { active } = props.keys;
  React.useEffect(() => {
    const box = drawing.boxes.find(b => b.branch.node.node_id === active);
    const element = area.current;
    if (box && element && element.contains(document.activeElement)) reveal(element, box, scale);
  }, [active, drawing, scale]);
  return (
    <div className="kt-drawing">
      <div
        ref={area}
        className="kt-drawing-area"
        role="tree"
        aria-label="Lineage"
        tabIndex={0}
        aria-activedescendant={active ? props.keys.idOf(active) : undefined}
        onKeyDown={props.keys.onKeyDown}
      >
        <div className="kt-drawing-page" role="presentation" style={{ width: width * scale, height: height * scale }}>
          <div className="kt-drawing-scaled" role="presentation" style={{ width, height, transform: `scale(${scale})` }}>
            <Edges drawing={drawing} selected={props.selected} />
            {drawing.boxes.map(box => (
              <NodeBox key={box.branch.node.node_id} box={box} {...props} />
            ))}
          </div>
        </div>
      </div>
      <div className="kt-zoom" role="group" aria-label="Zoom">
        <button type="button" onClick={() => step(-1)} aria-label="Smaller">
          −
        </button>
        <button type="button" onClick={() => setZoom(null)} aria-label="Fit the width">
          {Math.round(scale * 100)}%
        </button>
        <button type="button" onClick={() => step(1)} aria-label="Larger">
          +
        </button>
      </div>
    </div>
  );
}

function reveal(element: HTMLElement, box: { x: number; y: number; width: number; height: number }, scale: number): void {
  const top = (box.y + MARGIN) * scale;
  const left = (box.x + MARGIN) * scale;
  const tall = Math.min(box.height, 80) * scale;
  if (top < element.scrollTop) element.scrollTop = top - 8;
  else if (top + tall > element.scrollTop + element.clientHeight) element.scrollTop = top + tall - element.clientHeight + 8;
  if (left < element.scrollLeft) element.scrollLeft = left - 8;
  else if (left + 200 * scale > element.scrollLeft + element.clientWidth) element.scrollLeft = left + 200 * scale - element.clientWidth + 8;
}

const Edges = React.memo(function Edges(props: { drawing: Drawing; selected: string | null }): JSX.Element {
  const { paths, width, height } = props.drawing;
  const marker = useUniqueId('arrow');
  return (
    <svg className="kt-edges" width={width + 2 * MARGIN} height={height + 2 * MARGIN} aria-hidden="true">
      <defs>
        {['', '-near'].map(near => (
          <marker key={near} id={marker + near} viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
            <path d="M0.5 0.8L7.2 4 0.5 7.2Z" className={near ? 'kt-arrow kt-near' : 'kt-arrow'} />
          </marker>
        ))}
      </defs>
      <g transform={`translate(${MARGIN} ${MARGIN})`}>
        {paths.map(path => {
          const near = path.source === props.selected || path.target === props.selected;
          return (
            <path
              key={`${path.source}\n${path.target}`}
              className={`kt-edge kt-edge-${path.kind}${near ? ' kt-near' : ''}`}
              d={curve(path.points)}
              markerEnd={`url(#${marker}${near ? '-near' : ''})`}
            />
          );
        })}
      </g>
    </svg>
  );
});

function NodeBox(props: TreeProps & { box: Drawing['boxes'][number] }): JSX.Element {
  const { branch, x, y, width, height, open } = props.box;
  const { node } = branch;
  const id = node.node_id;
  const chosen = id === props.selected;
  const status = statusOf(branch);
  const classes = ['kt-node', `kt-kind-${node.kind}`, `kt-is-${status}`];
  if (chosen) classes.push('kt-selected');
  if (id === props.keys.active) classes.push('kt-active');
  if (open) classes.push('kt-box-open');
  return (
    <div
      id={props.keys.idOf(id)}
      className={classes.join(' ')}
      role="treeitem"
      aria-label={spoken(branch)}
      aria-selected={chosen}
      aria-level={branch.depth + 1}
      aria-expanded={branch.children.length ? open : undefined}
      style={{ left: x + MARGIN, top: y + MARGIN, width, height }}
      onClick={event => {
        event.stopPropagation();
        props.onSelect(id);
      }}
      title={node.failure ? visible(oneLine(node.failure, 300)) : visible(oneLine(node.selector, 300))}
    >
      <div className="kt-node-head">
        <StatusIcon status={status} />
        <span className="kt-node-name">
          <Text>{oneLine(node.selector, 120)}</Text>
        </span>
        {node.kind !== 'checkpoint' || node.type ? <span className="kt-chip">{kindWord(branch)}</span> : null}
        {branch.children.length ? (
          <span
            className="kt-node-more"
            onClick={event => {
              event.stopPropagation();
              props.toggle(id, !open);
            }}
          >
            {open ? '' : count(branch.inside)}
            <Chevron open={open} />
          </span>
        ) : null}
      </div>
      {node.kind === 'input' ? null : <div className="kt-node-facts">{facts(branch) || statusWord(status)}</div>}
    </div>
  );
}
