import { describe, expect, it } from 'vitest';
import { ago, bytes, duration, money, oneLine, pieces, short, visible } from '../src/format';

describe('durations and counts', () => {
  it('take the unit that fits', () => {
    expect([0.0001, 0.012, 0.9999, 1.24, 59.96, 123, 3900].map(duration)).toEqual(['< 1 ms', '12 ms', '1.0 s', '1.2 s', '1 min 00 s', '2 min 03 s', '1 h 05 min']);
    expect(duration(null)).toBe('');
    expect(duration(NaN)).toBe('');
  });

  it('shorten tokens, bytes and money', () => {
    expect([950, 1234, 99_960, 3_120_000].map(short)).toEqual(['950', '1.2k', '100k', '3.1M']);
    expect([812, 1200, 3_400_000].map(bytes)).toEqual(['812 B', '1.2 kB', '3.4 MB']);
    expect([0, 0.00001, 0.0031, 1.5].map(money)).toEqual(['', '< $0.0001', '$0.0031', '$1.50']);
  });

  it('tell how long ago an instant was', () => {
    const now = Date.parse('2026-01-10T12:00:00Z');
    expect(ago('2026-01-10T11:58:00Z', now)).toBe('2 min ago');
    expect(ago('2026-01-10T12:00:30Z', now)).toBe('in 30 s');
    expect(ago('nonsense', now)).toBe('');
  });
});

describe('deceiving characters', () => {
  it('become visible escapes', () => {
    expect(visible('a\u202eb\u0000c\u001b[31m\ud800')).toBe('a\\u202eb\\x00c\\x1b[31m\\ud800');
    expect(pieces('a\u200bb')).toEqual(['a', '\\u200b', 'b']);
  });

  it('leave newlines, tabs and compound emoji alone', () => {
    expect(visible('a\n\tb 👩‍🚀')).toBe('a\n\tb 👩‍🚀');
    expect(visible('one\r\ntwo')).toBe('one\ntwo');
  });

  it('do not slow down a long text', () => {
    const text = 'x'.repeat(5_000_000);
    const start = performance.now();
    expect(pieces(text)).toEqual([text]);
    expect(oneLine(text, 50)).toHaveLength(50);
    expect(performance.now() - start).toBeLessThan(2000);
  });
});
