/** JSON that keeps whole numbers exact: those beyond JavaScript's safe range are bigints. */

export function stringify(value: unknown): string {
  if (typeof value === 'bigint') return value.toString();
  if (Array.isArray(value)) return `[${value.map(stringify).join(',')}]`;
  if (value !== null && typeof value === 'object') {
    const fields = Object.entries(value).filter(([, v]) => v !== undefined);
    return `{${fields.map(([k, v]) => `${JSON.stringify(k)}:${stringify(v)}`).join(',')}}`;
  }
  return JSON.stringify(value) ?? 'null';
}

/** JSON text laid out for reading, by text alone: numbers stay as they were written, however deep the nesting is. */
export function pretty(json: string): string {
  const out: string[] = [];
  let depth = 0;
  const line = (): void => void out.push('\n', '  '.repeat(Math.min(depth, 40)));
  for (const match of json.matchAll(/"(?:[^"\\]|\\.)*"|[[\]{},:]|[^\s[\]{},:"]+/g)) {
    const token = match[0];
    const next = peek(json, match.index + token.length);
    if (token === '{' || token === '[') {
      out.push(token);
      depth += 1;
      if (next !== '}' && next !== ']') line();
    } else if (token === '}' || token === ']') {
      depth -= 1;
      const last = out[out.length - 1];
      if (last !== '{' && last !== '[') line();
      out.push(token);
    } else if (token === ',') {
      out.push(token);
      line();
    } else {
      out.push(token === ':' ? ': ' : token);
    }
  }
  return out.join('');
}

function peek(json: string, from: number): string {
  for (let i = from; i < json.length; i += 1) {
    const character = json[i]!;
    if (character !== ' ' && character !== '\n' && character !== '\r' && character !== '\t') return character;
  }
  return '';
}
