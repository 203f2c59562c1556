/** Two texts line by line: Myers' algorithm, bounded so that it never freezes a page. */

export interface DiffLine {
  kind: 'same' | 'left' | 'right';
  text: string;
  left: number | null;
  right: number | null;
}

/** Beyond this many changes the middle is told as replaced altogether. */
const MOST_CHANGES = 1000;

export function diffLines(left: string, right: string): DiffLine[] {
  const a = left.split('\n');
  const b = right.split('\n');
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end += 1;
  const lines: DiffLine[] = [];
  for (let i = 0; i < start; i += 1) lines.push({ kind: 'same', text: a[i]!, left: i + 1, right: i + 1 });
  lines.push(...middle(a, b, start, a.length - end, b.length - end));
  for (let i = end; i > 0; i -= 1) {
    lines.push({ kind: 'same', text: a[a.length - i]!, left: a.length - i + 1, right: b.length - i + 1 });
  }
  return lines;
}

/** Shortest edit between the changed parts: `reach[k]` is how far on diagonal k (x - y) d changes lead. */
function middle(a: string[], b: string[], start: number, aEnd: number, bEnd: number): DiffLine[] {
  const n = aEnd - start;
  const m = bEnd - start;
  const most = Math.min(n + m, MOST_CHANGES);
  const reach = new Int32Array(2 * most + 3);
  const zero = most + 1;
  const trace: Int32Array[] = [];
  for (let d = 0; d <= most; d += 1) {
    trace.push(reach.slice(zero - d - 1, zero + d + 2));
    for (let k = -d; k <= d; k += 2) {
      let x = isDown(reach, zero, k, d) ? reach[zero + k + 1]! : reach[zero + k - 1]! + 1;
      let y = x - k;
      while (x < n && y < m && a[start + x] === b[start + y]) {
        x += 1;
        y += 1;
      }
      reach[zero + k] = x;
      if (x >= n && y >= m) return walkBack(a, b, start, n, m, trace);
    }
  }
  return replaced(a, b, start, aEnd, bEnd);
}

function isDown(reach: Int32Array, zero: number, k: number, d: number): boolean {
  return k === -d || (k !== d && reach[zero + k - 1]! < reach[zero + k + 1]!);
}

function walkBack(a: string[], b: string[], start: number, n: number, m: number, trace: Int32Array[]): DiffLine[] {
  const lines: DiffLine[] = [];
  let x = n;
  let y = m;
  const same = (): void => {
    x -= 1;
    y -= 1;
    lines.push({ kind: 'same', text: a[start + x]!, left: start + x + 1, right: start + y + 1 });
  };
  for (let d = trace.length - 1; d > 0; d -= 1) {
    const reach = trace[d]!;
    const zero = d + 1;
    const k = x - y;
    const down = isDown(reach, zero, k, d);
    const fromX = reach[zero + (down ? k + 1 : k - 1)]!;
    const fromY = fromX - (down ? k + 1 : k - 1);
    while (x > fromX && y > fromY && x + y > fromX + fromY + 1) same();
    if (down) {
      y -= 1;
      lines.push({ kind: 'right', text: b[start + y]!, left: null, right: start + y + 1 });
    } else {
      x -= 1;
      lines.push({ kind: 'left', text: a[start + x]!, left: start + x + 1, right: null });
    }
  }
  while (x > 0 && y > 0) same();
  return lines.reverse();
}

function replaced(a: string[], b: string[], start: number, aEnd: number, bEnd: number): DiffLine[] {
  const lines: DiffLine[] = [];
  for (let i = start; i < aEnd; i += 1) lines.push({ kind: 'left', text: a[i]!, left: i + 1, right: null });
  for (let i = start; i < bEnd; i += 1) lines.push({ kind: 'right', text: b[i]!, left: null, right: i + 1 });
  return lines;
}

/** Lines with long stretches of sameness folded to a number. */
export function folded(lines: readonly DiffLine[], around = 3): (DiffLine | number)[] {
  const keep = new Array<boolean>(lines.length).fill(false);
  lines.forEach((line, i) => {
    if (line.kind === 'same') return;
    for (let j = Math.max(0, i - around); j <= Math.min(lines.length - 1, i + around); j += 1) keep[j] = true;
  });
  const found: (DiffLine | number)[] = [];
  let hidden = 0;
  lines.forEach((line, i) => {
    if (keep[i]) {
      if (hidden) found.push(hidden);
      hidden = 0;
      found.push(line);
    } else hidden += 1;
  });
  if (hidden) found.push(hidden);
  return found;
}
