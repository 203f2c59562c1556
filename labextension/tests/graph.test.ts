import { describe, expect, it } from 'vitest';
import type { ExecutionGraph, Node as GraphNode } from '../src/model';
import { layeredOf } from '../src/graph/layered';
import { lanesOf, MOST_LANES } from '../src/graph/lanes';
import { closedAtFirst, treeOf, visibleLinks, visibleOf } from '../src/graph/tree';

function node(id: string, parent: string | null = null, more: Partial<GraphNode> = {}): GraphNode {
  return {
    node_id: id, kind: 'checkpoint', name: id, selector: id, type: null, status: 'completed', started_at: null, ended_at: null,
    duration: 1, tokens: 0, cost: 0, parent, failure: null, ...more
  };
}

function graph(nodes: GraphNode[], edges: [string, string, ('data' | 'order' | 'nested')?][] = []): ExecutionGraph {
  return { exec_id: 'kr-1', status: 'completed', seq: 1, nodes, edges: edges.map(([source, target, kind]) => ({ source, target, kind: kind ?? 'data' })) };
}

describe('the tree of calls', () => {
  const nested = graph(
    [node('load'), node('agent'), node('m1', 'agent', { tokens: 10, cost: 0.1 }), node('t1', 'agent'), node('inner', 't1', { tokens: 5 }), node('end')],
    [['load', 'm1'], ['m1', 't1', 'order'], ['inner', 'end'], ['agent', 'm1', 'nested'], ['ghost', 'end']]
  );

  it('nests calls, sums what happened inside and drops edges to nowhere', () => {
    const tree = treeOf(nested);
    expect(tree.roots.map(b => b.node.node_id)).toEqual(['load', 'agent', 'end']);
    expect(tree.byId.get('agent')).toMatchObject({ inside: 3, tokens: 15, cost: 0.1 });
    expect(tree.byId.get('inner')!.depth).toBe(2);
    expect(tree.links).toHaveLength(3);
  });

  it('does not count twice what a call logged as its own total', () => {
    const tree = treeOf(graph([node('agent', null, { tokens: 12 }), node('m', 'agent', { tokens: 12 })]));
    expect(tree.byId.get('agent')!.tokens).toBe(12);
  });

  it('shows a closed call for the calls inside it', () => {
    const tree = treeOf(nested);
    const visible = visibleOf(tree, new Set(['agent']));
    expect(visible.map(b => b.node.node_id)).toEqual(['load', 'agent', 'end']);
    expect(visibleLinks(tree, visible)).toEqual([
      { source: 'load', target: 'agent', kind: 'data' },
      { source: 'agent', target: 'end', kind: 'data' }
    ]);
  });

  it('closes all calls of a big execution at first', () => {
    const many = Array.from({ length: 60 }, (_, i) => node(`c${i}`, i ? 'c0' : null));
    expect(closedAtFirst(treeOf(graph(many)))).toEqual(new Set(['c0']));
    expect(closedAtFirst(treeOf(nested))).toEqual(new Set());
  });

  it('survives parents that are not there', () => {
    expect(treeOf(graph([node('a', 'gone'), node('b', 'b')])).roots).toHaveLength(2);
  });
});

describe('the layered drawing', () => {
  it('puts readers below what they read, and nothing above another', () => {
    const tree = treeOf(graph([node('a'), node('b'), node('c'), node('d')], [['a', 'b'], ['a', 'c'], ['b', 'd'], ['c', 'd']]));
    const { boxes, paths, width, height } = layeredOf(tree, new Set());
    const at = Object.fromEntries(boxes.map(b => [b.branch.node.node_id, b]));
    expect(at.a!.y).toBeLessThan(at.b!.y);
    expect(at.c!.y).toBeLessThan(at.d!.y);
    expect(overlaps(boxes)).toEqual([]);
    expect(paths).toHaveLength(4);
    expect(width).toBeGreaterThan(0);
    expect(height).toBeGreaterThan(at.d!.y);
  });

  it('draws an open call as a box around its calls', () => {
    const tree = treeOf(graph([node('a'), node('x'), node('i1', 'x'), node('i2', 'x')], [['a', 'i1'], ['i1', 'i2']]));
    const at = Object.fromEntries(layeredOf(tree, new Set()).boxes.map(b => [b.branch.node.node_id, b]));
    expect(at.x!.open).toBe(true);
    for (const inner of [at.i1!, at.i2!]) {
      expect(inner.x).toBeGreaterThanOrEqual(at.x!.x);
      expect(inner.y + inner.height).toBeLessThanOrEqual(at.x!.y + at.x!.height);
    }
    expect(at.a!.y).toBeLessThan(at.x!.y);
  });

  it('sets unlinked calls in rows instead of one endless line', () => {
    const tree = treeOf(graph(Array.from({ length: 40 }, (_, i) => node(`n${i}`))));
    const drawing = layeredOf(tree, new Set());
    expect(drawing.width).toBeLessThan(1000);
    expect(overlaps(drawing.boxes)).toEqual([]);
  });

  it('is empty for an empty graph', () => {
    expect(layeredOf(treeOf(graph([])), new Set())).toEqual({ boxes: [], paths: [], width: 0, height: 0 });
  });
});

function overlaps(boxes: { x: number; y: number; width: number; height: number }[]): number[][] {
  const found: number[][] = [];
  boxes.forEach((a, i) =>
    boxes.slice(i + 1).forEach((b, j) => {
      if (a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height) found.push([i, i + 1 + j]);
    })
  );
  return found;
}

describe('lanes', () => {
  it('carry each value from its call to its last reader', () => {
    const { rows, width } = lanesOf(['a', 'b', 'c'], [
      { source: 'a', target: 'b', kind: 'data' },
      { source: 'a', target: 'c', kind: 'order' }
    ]);
    expect(rows[0]).toMatchObject({ lane: 0, into: [], out: true });
    expect(rows[1]!.into).toEqual([{ lane: 0, on: true, dashed: false }]);
    expect(rows[1]!.lane).not.toBe(0);
    expect(rows[2]).toMatchObject({ lane: 0, into: [{ lane: 0, on: false, dashed: true }], out: false });
    expect(width).toBe(2);
  });

  it('leave out links against the order', () => {
    expect(lanesOf(['a', 'b'], [{ source: 'b', target: 'a', kind: 'data' }]).rows.every(r => !r.into.length && !r.out)).toBe(true);
  });

  it('stay narrow however many values are under way', () => {
    const ids = Array.from({ length: 500 }, (_, i) => `n${i}`);
    const links = ids.slice(0, -1).map(source => ({ source, target: 'n499', kind: 'data' as const }));
    const { rows, width } = lanesOf(ids, links);
    expect(width).toBeLessThanOrEqual(MOST_LANES);
    expect(Math.max(...rows.map(r => r.lane))).toBeLessThan(MOST_LANES);
  });

  it('take 10,000 nodes without a quadratic step', () => {
    const ids = Array.from({ length: 10_000 }, (_, i) => `n${i}`);
    const links = ids.slice(3).flatMap((target, i) => [{ source: ids[i]!, target, kind: 'data' as const }, { source: ids[i + 1]!, target, kind: 'data' as const }]);
    const start = performance.now();
    lanesOf(ids, links);
    expect(performance.now() - start).toBeLessThan(8000);
  });
});
