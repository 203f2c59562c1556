/** Numbers, times and sizes as people say them; the same words as the command line's. */

export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return '';
  if (seconds < 0.0005) return '< 1 ms';
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${two(whole % 60)} s`;
  const allMinutes = Math.floor(whole / 60);
  return `${Math.floor(allMinutes / 60)} h ${two(allMinutes % 60)} min`;
}

function two(n: number): string {
  return String(n).padStart(2, '0');
}

/** How long ago an instant was; a date when it is more than a month. */
export function ago(instant: string, now: number): string {
  const then = Date.parse(instant);
  if (Number.isNaN(then)) return '';
  const seconds = (now - then) / 1000;
  if (seconds < -1) return `in ${rough(-seconds)}`;
  if (seconds < 5) return 'just now';
  return seconds < 30 * 86400 ? `${rough(seconds)} ago` : localDate(then);
}

function rough(seconds: number): string {
  for (const [unit, size] of [['d', 86400], ['h', 3600], ['min', 60]] as const) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${Math.floor(seconds)} s`;
}

function localDate(time: number): string {
  const d = new Date(time);
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}`;
}

/** An instant in full, in the reader's time zone. */
export function instant(text: string | null | undefined): string {
  const time = text ? Date.parse(text) : NaN;
  if (Number.isNaN(time)) return '';
  const d = new Date(time);
  return `${localDate(time)} ${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
}

export function clock(text: string): string {
  return instant(text).slice(11);
}

export function secondsBetween(start: string | null, end: string | null): number | null {
  if (!start || !end) return null;
  const span = (Date.parse(end) - Date.parse(start)) / 1000;
  return Number.isFinite(span) ? span : null;
}

export function bytes(count: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = count;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return unit === 0 ? `${value} B` : `${value.toFixed(1)} ${units[unit]}`;
}

export function count(number: number): string {
  return number.toLocaleString('en-US');
}

export function counted(number: number, one: string, many = `${one}s`): string {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** Tokens in a narrow column: 950, 12.4k, 3.1M. */
export function short(number: number): string {
  if (number < 1000) return String(number);
  if (number < 999_950) return `${(number / 1000).toFixed(number < 99_950 ? 1 : 0)}k`;
  return `${(number / 1_000_000).toFixed(1)}M`;
}

export function money(cost: number): string {
  if (!cost) return '';
  if (cost < 0.0001) return '< $0.0001';
  return `$${cost < 0.1 ? cost.toFixed(4) : cost.toFixed(2)}`;
}

const DECEIVING = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u;
const ALL_DECEIVING = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** Splits text into plain pieces (even places) and escapes of what could deceive a reader (odd places).
 *  Newlines, tabs and the joiner of compound emoji stay. */
export function pieces(text: string): string[] {
  if (!DECEIVING.test(text)) return [text];
  const found: string[] = [];
  let plain = 0;
  let kept = '';
  for (const match of text.matchAll(ALL_DECEIVING)) {
    const character = match[0];
    if (character === '\n' || character === '\t' || character === '\u200d') continue;
    kept = text.slice(plain, match.index);
    plain = match.index + character.length;
    if (character === '\r' && text[plain] === '\n') {
      found.push(kept, '');
      continue;
    }
    found.push(kept, escape(character));
  }
  found.push(text.slice(plain));
  return found;
}

function escape(character: string): string {
  const code = character.codePointAt(0) ?? 0;
  const hex = code.toString(16);
  if (code < 0x100) return `\\x${hex.padStart(2, '0')}`;
  return code < 0x10000 ? `\\u${hex.padStart(4, '0')}` : `\\U${hex.padStart(8, '0')}`;
}

/** Text with its deceiving characters as escapes, for titles and labels. */
export function visible(text: string): string {
  return pieces(text).join('');
}

/** One line of at most `width` characters. */
export function oneLine(text: string, width = 200): string {
  const head = text.slice(0, width * 4).replace(/\s+/g, ' ').trim();
  const cut = head.length > width || text.length > width * 4;
  return cut ? `${head.slice(0, width - 1)}…` : head;
}
