/** A layered drawing: values flow downwards; an open call is a box around the calls inside it. */

import * as dagre from '@dagrejs/dagre';
import { standIns, visibleOf, type Branch, type Link, type Tree } from './tree';

export interface Box {
  branch: Branch;
  x: number;
  y: number;
  width: number;
  height: number;
  /** Whether the nodes inside are drawn in it. */
  open: boolean;
}

export interface Path {
  source: string;
  target: string;
  kind: 'data' | 'order';
  points: { x: number; y: number }[];
}

export interface Drawing {
  boxes: Box[];
  paths: Path[];
  width: number;
  height: number;
}

export const NODE_WIDTH = 204;
export const NODE_HEIGHT = 52;
const HEADER = 40;
const PAD = 14;
const GAP_X = 24;
const GAP_Y = 34;
const GRID_COLUMNS = 4;

/** More visible nodes than these take dagre too long; the list with lanes shows them. */
export const MOST_LAYERED = 300;

interface Part {
  boxes: Box[];
  paths: Path[];
  width: number;
  height: number;
}

export function layeredOf(tree: Tree, closed: ReadonlySet<string>): Drawing {
  const visible = visibleOf(tree, closed);
  const stands = standIns(tree, visible);
  const levels = linksByLevel(tree, stands);
  return container(tree.roots, closed, levels, '');
}

/** For each open box ("" is the page): the links between its own children, lifted from wherever they begin and end. */
function linksByLevel(tree: Tree, stands: ReadonlyMap<string, string>): Map<string, Map<string, Link>> {
  const levels = new Map<string, Map<string, Link>>();
  for (const link of tree.links) {
    const source = pathTo(tree, stands.get(link.source)!);
    const target = pathTo(tree, stands.get(link.target)!);
    let i = 0;
    while (i < source.length && i < target.length && source[i] === target[i]) i += 1;
    if (i >= source.length || i >= target.length) continue;
    const level = i === 0 ? '' : source[i - 1]!;
    const found = levels.get(level) ?? new Map<string, Link>();
    levels.set(level, found);
    const key = `${source[i]!}\n${target[i]!}`;
    if (link.kind === 'data' || !found.has(key)) found.set(key, { source: source[i]!, target: target[i]!, kind: link.kind });
  }
  return levels;
}

function pathTo(tree: Tree, id: string): string[] {
  const path: string[] = [];
  let at: string | null = id;
  while (at !== null && tree.byId.has(at)) {
    path.push(at);
    at = tree.byId.get(at)!.node.parent;
  }
  return path.reverse();
}

function container(children: readonly Branch[], closed: ReadonlySet<string>, levels: Map<string, Map<string, Link>>, level: string): Part {
  const sizes = new Map<string, { part: Part | null; width: number; height: number }>();
  for (const child of children) {
    const open = child.children.length > 0 && !closed.has(child.node.node_id);
    const part = open ? container(child.children, closed, levels, child.node.node_id) : null;
    const width = part ? Math.max(NODE_WIDTH, part.width + 2 * PAD) : NODE_WIDTH;
    sizes.set(child.node.node_id, { part, width, height: part ? part.height + HEADER + PAD : NODE_HEIGHT });
  }
  const links = [...(levels.get(level)?.values() ?? [])];
  const linked = new Set(links.flatMap(l => [l.source, l.target]));
  const drawn = children.filter(c => linked.has(c.node.node_id));
  const alone = children.filter(c => !linked.has(c.node.node_id));
  const places = new Map<string, { x: number; y: number }>();
  const paths: Path[] = [];
  let width = 0;
  let height = 0;
  if (drawn.length) {
    const graph = new dagre.graphlib.Graph().setGraph({ rankdir: 'TB', nodesep: GAP_X, ranksep: GAP_Y }).setDefaultEdgeLabel(() => ({}));
    for (const child of drawn) {
      const size = sizes.get(child.node.node_id)!;
      graph.setNode(child.node.node_id, { width: size.width, height: size.height });
    }
    for (const link of links) graph.setEdge(link.source, link.target, { weight: link.kind === 'data' ? 2 : 1 });
    dagre.layout(graph);
    for (const child of drawn) {
      const at = graph.node(child.node.node_id);
      places.set(child.node.node_id, { x: at.x - at.width / 2, y: at.y - at.height / 2 });
    }
    for (const link of links) {
      paths.push({ ...link, points: graph.edge(link.source, link.target).points.map(p => ({ x: p.x, y: p.y })) });
    }
    const label = graph.graph() as { width: number; height: number };
    width = label.width;
    height = label.height;
  }
  if (alone.length) {
    const grid = gridOf(alone, sizes, height ? height + GAP_Y : 0);
    grid.places.forEach((at, id) => places.set(id, at));
    width = Math.max(width, grid.width);
    height = grid.height;
  }
  const boxes: Box[] = [];
  for (const child of children) {
    const { x, y } = places.get(child.node.node_id)!;
    const size = sizes.get(child.node.node_id)!;
    boxes.push({ branch: child, x, y, width: size.width, height: size.height, open: size.part !== null });
    if (size.part) {
      const left = x + (size.width - size.part.width) / 2;
      const top = y + HEADER;
      boxes.push(...size.part.boxes.map(b => ({ ...b, x: b.x + left, y: b.y + top })));
      paths.push(...size.part.paths.map(p => ({ ...p, points: p.points.map(q => ({ x: q.x + left, y: q.y + top })) })));
    }
  }
  return { boxes, paths, width, height };
}

/** Nodes that nothing links, in rows. */
function gridOf(
  alone: readonly Branch[],
  sizes: Map<string, { width: number; height: number }>,
  top: number
): { places: Map<string, { x: number; y: number }>; width: number; height: number } {
  const columns = Math.min(GRID_COLUMNS, Math.ceil(Math.sqrt(alone.length)));
  const places = new Map<string, { x: number; y: number }>();
  let width = 0;
  let y = top;
  for (let i = 0; i < alone.length; i += columns) {
    let x = 0;
    let tallest = 0;
    for (const branch of alone.slice(i, i + columns)) {
      const size = sizes.get(branch.node.node_id)!;
      places.set(branch.node.node_id, { x, y });
      x += size.width + GAP_X;
      tallest = Math.max(tallest, size.height);
    }
    width = Math.max(width, x - GAP_X);
    y += tallest + GAP_X;
  }
  return { places, width, height: y - GAP_X };
}

/** A smooth line through the points of a path. */
export function curve(points: readonly { x: number; y: number }[]): string {
  const [first, ...rest] = points;
  if (!first || rest.length === 0) return '';
  let path = `M${first.x} ${first.y}`;
  for (let i = 0; i < rest.length - 1; i += 1) {
    const at = rest[i]!;
    const next = rest[i + 1]!;
    const end = i === rest.length - 2 ? next : { x: (at.x + next.x) / 2, y: (at.y + next.y) / 2 };
    path += ` Q${at.x} ${at.y} ${end.x} ${end.y}`;
  }
  if (rest.length === 1) path += ` L${rest[0]!.x} ${rest[0]!.y}`;
  return path;
}
