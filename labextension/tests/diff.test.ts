import { describe, expect, it } from 'vitest';
import { diffLines, folded } from '../src/views/diff';

function applied(left: string, right: string): void {
  const lines = diffLines(left, right);
  expect(lines.filter(l => l.kind !== 'right').map(l => l.text).join('\n')).toBe(left);
  expect(lines.filter(l => l.kind !== 'left').map(l => l.text).join('\n')).toBe(right);
  expect(lines.flatMap(l => (l.left === null ? [] : [l.left]))).toEqual(left.split('\n').map((_, i) => i + 1));
  expect(lines.flatMap(l => (l.right === null ? [] : [l.right]))).toEqual(right.split('\n').map((_, i) => i + 1));
}

describe('differences', () => {
  it('give both texts back', () => {
    applied('a\nb\nc', 'a\nx\nc');
    applied('', 'a');
    applied('a\nb', 'b\na');
    applied('same', 'same');
    let seed = 7;
    const random = (n: number): number => (seed = (seed * 1103515245 + 12345) % 2147483648) % n;
    for (let round = 0; round < 200; round += 1) {
      const text = (): string => Array.from({ length: random(14) }, () => 'abc'[random(3)]).join('\n');
      applied(text(), text());
    }
  });

  it('are the shortest', () => {
    expect(diffLines('a\nb\nc\na\nb\nb\na', 'c\nb\na\nb\na\nc').filter(l => l.kind !== 'same')).toHaveLength(5);
  });

  it('stay quick for texts that have nothing in common', () => {
    const left = Array.from({ length: 20_000 }, (_, i) => `l${i}`).join('\n');
    const right = Array.from({ length: 20_000 }, (_, i) => `r${i}`).join('\n');
    const start = performance.now();
    expect(diffLines(left, right)).toHaveLength(40_000);
    expect(performance.now() - start).toBeLessThan(3000);
  });

  it('fold what is the same', () => {
    const left = Array.from({ length: 50 }, (_, i) => `line ${i}`);
    const right = left.map((l, i) => (i === 25 ? 'changed' : l));
    const rows = folded(diffLines(left.join('\n'), right.join('\n')));
    expect(rows[0]).toBe(22);
    expect(rows[rows.length - 1]).toBe(21);
    expect(rows).toHaveLength(10);
  });
});
