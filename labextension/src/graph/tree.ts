/** The nodes of an execution as a tree of nested calls, and what of it is visible while some branches are closed. */

import type { ExecutionGraph, Node as GraphNode } from '../model';

export interface Branch {
  node: GraphNode;
  children: Branch[];
  depth: number;
  /** Calls inside, at every level. */
  inside: number;
  tokens: number;
  cost: number;
}

export interface Link {
  source: string;
  target: string;
  kind: 'data' | 'order';
}

export interface Tree {
  roots: Branch[];
  byId: Map<string, Branch>;
  links: Link[];
}

const SMALL = 40;
const FEW = 8;

/** Nested nodes, siblings in order of time. Edges to nodes that aren't there are left out. */
export function treeOf(graph: ExecutionGraph): Tree {
  const byId = new Map<string, Branch>();
  for (const node of graph.nodes) {
    byId.set(node.node_id, { node, children: [], depth: 0, inside: 0, tokens: node.tokens, cost: node.cost });
  }
  const roots: Branch[] = [];
  for (const branch of byId.values()) {
    const parent = branch.node.parent === null ? undefined : byId.get(branch.node.parent);
    (parent && parent !== branch ? parent.children : roots).push(branch);
  }
  roots.sort(byTime);
  for (const branch of byId.values()) branch.children.sort(byTime);
  measure(roots);
  const links = graph.edges.flatMap(e =>
    e.kind !== 'nested' && e.source !== e.target && byId.has(e.source) && byId.has(e.target)
      ? [{ source: e.source, target: e.target, kind: e.kind }]
      : []
  );
  return { roots, byId, links };
}

/** Inputs have no time and come first; equal times keep their order. */
function byTime(one: Branch, other: Branch): number {
  const a = one.node.started_at ?? '';
  const b = other.node.started_at ?? '';
  return a < b ? -1 : a > b ? 1 : 0;
}

function measure(roots: Branch[]): void {
  const stack = [...roots];
  const order: Branch[] = [];
  while (stack.length) {
    const branch = stack.pop()!;
    order.push(branch);
    for (const child of branch.children) {
      child.depth = branch.depth + 1;
      stack.push(child);
    }
  }
  for (const branch of order.reverse()) {
    branch.inside = branch.children.reduce((sum, c) => sum + 1 + c.inside, 0);
    // A call that logged its own total already counts what happened inside it.
    if (!branch.node.tokens) branch.tokens = branch.children.reduce((sum, c) => sum + c.tokens, 0);
    if (!branch.node.cost) branch.cost = branch.children.reduce((sum, c) => sum + c.cost, 0);
  }
}

/** Branches that are closed at first: all in a big execution, the big ones in a small one. */
export function closedAtFirst(tree: Tree): Set<string> {
  const closed = new Set<string>();
  for (const branch of tree.byId.values()) {
    if (branch.children.length && (tree.byId.size > SMALL || branch.inside > FEW)) closed.add(branch.node.node_id);
  }
  return closed;
}

/** What is visible, each node before the nodes inside it. */
export function visibleOf(tree: Tree, closed: ReadonlySet<string>): Branch[] {
  const found: Branch[] = [];
  const stack = [...tree.roots].reverse();
  while (stack.length) {
    const branch = stack.pop()!;
    found.push(branch);
    if (!closed.has(branch.node.node_id)) {
      for (let i = branch.children.length - 1; i >= 0; i -= 1) stack.push(branch.children[i]!);
    }
  }
  return found;
}

/** For each node, the visible one that stands for it: itself, or the closed branch around it. */
export function standIns(tree: Tree, visible: readonly Branch[]): Map<string, string> {
  const stands = new Map<string, string>();
  const shown = new Set(visible.map(b => b.node.node_id));
  for (const id of tree.byId.keys()) {
    let at: string | null = id;
    const seen: string[] = [];
    while (at !== null && !shown.has(at) && !stands.has(at)) {
      seen.push(at);
      at = tree.byId.get(at)?.node.parent ?? null;
    }
    const target = at === null ? id : (stands.get(at) ?? at);
    stands.set(id, target);
    for (const between of seen) stands.set(between, target);
  }
  return stands;
}

/** Links between visible nodes; one for each pair, data before order, none from a call to what is inside it. */
export function visibleLinks(tree: Tree, visible: readonly Branch[]): Link[] {
  const stands = standIns(tree, visible);
  const found = new Map<string, Link>();
  for (const link of tree.links) {
    const source = stands.get(link.source)!;
    const target = stands.get(link.target)!;
    if (source === target || encloses(tree, source, target) || encloses(tree, target, source)) continue;
    const key = `${source}\n${target}`;
    if (link.kind === 'data' || !found.has(key)) found.set(key, { source, target, kind: link.kind });
  }
  return [...found.values()];
}

function encloses(tree: Tree, outer: string, inner: string): boolean {
  let at = tree.byId.get(inner)?.node.parent ?? null;
  while (at !== null) {
    if (at === outer) return true;
    at = tree.byId.get(at)?.node.parent ?? null;
  }
  return false;
}
