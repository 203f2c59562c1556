import { describe, expect, it } from 'vitest';
import { pretty, stringify } from '../src/json';

describe('stringify', () => {
  it('keeps whole numbers beyond the safe range exact', () => {
    expect(stringify({ value: [12345678901234567890n, 1.5, 'a"b', null, true] })).toBe('{"value":[12345678901234567890,1.5,"a\\"b",null,true]}');
  });

  it('leaves undefined fields out', () => {
    expect(stringify({ a: undefined, b: 1 })).toBe('{"b":1}');
  });
});

describe('pretty', () => {
  it('lays out and changes no number', () => {
    expect(pretty('{"a":[1,{"b":12345678901234567890.10}],"c":{},"d":[]}')).toBe(
      '{\n  "a": [\n    1,\n    {\n      "b": 12345678901234567890.10\n    }\n  ],\n  "c": {},\n  "d": []\n}'
    );
  });

  it('is not fooled by brackets in strings', () => {
    expect(pretty('["]{,\\"",2]')).toBe('[\n  "]{,\\"",\n  2\n]');
  });

  it('survives deep nesting', () => {
    const deep = '['.repeat(20_000) + ']'.repeat(20_000);
    expect(pretty(deep).startsWith('[\n  [\n    [')).toBe(true);
  });
});
