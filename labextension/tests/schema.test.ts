import { describe, expect, it } from 'vitest';
import { fieldOf, humanize, initial, read, resolved, titleOf, type Draft, type Schema } from '../src/form/schema';

const plain = (text: string): Draft => ({ kind: 'plain', text });

function answer(schema: Schema, draft: Draft): unknown {
  const { value, problems } = read(schema, schema, draft);
  return problems.size ? Object.fromEntries(problems) : value;
}

describe('what is asked', () => {
  it('follows references, also into themselves', () => {
    const root: Schema = { $defs: { Node: { type: 'object', properties: { next: { $ref: '#/$defs/Node' } } } }, $ref: '#/$defs/Node' };
    expect(fieldOf(root, root).kind).toBe('object');
    const loop: Schema = { $defs: { A: { $ref: '#/$defs/A' } }, $ref: '#/$defs/A' };
    expect(fieldOf(loop, loop).kind).toBe('json');
    expect(resolved({ $ref: '#/$defs/gone' }, root)).toEqual({});
  });

  it('does not look up names that every object has', () => {
    expect(resolved({ $ref: '#/constructor' }, {})).toEqual({});
  });

  it('reads T or null as an optional T, and several kinds as variants', () => {
    expect(fieldOf({ anyOf: [{ type: 'number' }, { type: 'null' }] }, {})).toMatchObject({ kind: 'number', nullable: true });
    expect(fieldOf({ type: ['string', 'null'] }, {})).toMatchObject({ kind: 'text', nullable: true });
    expect(fieldOf({ anyOf: [{ type: 'string' }, { type: 'integer' }] }, {})).toMatchObject({ kind: 'variants', variants: [{}, {}] });
  });

  it('calls a field by its own title or name, never by the title of the type that it refers to', () => {
    expect(titleOf({ $ref: '#/$defs/Address' }, 'bill_to')).toBe('Bill to');
    expect(titleOf({ anyOf: [{ $ref: '#/$defs/Address' }, { type: 'null' }] }, 'ship_to')).toBe('Ship to');
    expect(titleOf({ $ref: '#/$defs/Address', title: 'Where to' }, 'ship_to')).toBe('Where to');
  });

  it('merges allOf', () => {
    const schema: Schema = { allOf: [{ type: 'object', properties: { a: { type: 'string' } }, required: ['a'] }, { properties: { b: { type: 'integer' } }, required: ['b'] }] };
    expect(Object.keys(fieldOf(schema, schema).schema.properties as object).sort()).toEqual(['a', 'b']);
  });

  it('asks for JSON where it knows nothing better', () => {
    expect(['object', 'array', undefined].map(type => fieldOf({ type }, {}).kind)).toEqual(['json', 'json', 'json']);
  });

  it('names fields for people', () => {
    expect(humanize('due_date')).toBe('Due date');
  });
});

describe('answers', () => {
  it('keep booleans, numbers and texts apart', () => {
    expect(answer({ type: 'boolean' }, { kind: 'truth', value: false })).toBe(false);
    expect(answer({ type: 'integer' }, plain('1'))).toBe(1);
    expect(answer({ type: 'string' }, plain('1'))).toBe('1');
    expect(answer({ enum: [1, '1', true] }, { kind: 'pick', index: 1 })).toBe('1');
  });

  it('keep big whole numbers exact', () => {
    expect(answer({ type: 'integer' }, plain('12345678901234567890'))).toBe(12345678901234567890n);
  });

  it.each([
    [{ type: 'integer' }, '1.5', 'Enter a whole number, such as 3.'],
    [{ type: 'integer', minimum: 1 }, '0', 'At least 1.'],
    [{ type: 'number', exclusiveMaximum: 1 }, '1', 'Less than 1.'],
    [{ type: 'number', multipleOf: 0.1 }, '0.25', 'A multiple of 0.1.'],
    [{ type: 'number' }, '0x10', 'Enter a number, such as 0.5.'],
    [{ type: 'number' }, '', 'Enter a number.'],
    [{ type: 'number' }, '1e999', 'This number is too large.'],
    [{ type: 'string', minLength: 1 }, '', 'An answer is needed.'],
    [{ type: 'string', maxLength: 1 }, '👩👩', 'At most 1 characters; these are 2.'],
    [{ type: 'string', pattern: '^a' }, 'b', 'It must match ^a'],
    [{ type: 'boolean' }, null, 'Choose yes or no.']
  ] as [Schema, string | null, string][])('%j refuses %j', (schema, entered, message) => {
    const draft: Draft = entered === null ? { kind: 'truth', value: null } : plain(entered);
    expect(answer(schema, draft)).toEqual({ '': message });
  });

  it('take a multiple that binary fractions only come near to', () => {
    expect(answer({ type: 'number', multipleOf: 0.1 }, plain('0.3'))).toBe(0.3);
  });

  it('leave a pattern of another dialect to the server', () => {
    expect(answer({ type: 'string', pattern: '(?P<year>\\d+)' }, plain('x'))).toBe('x');
  });

  it('leave optional fields out and tell where required ones are missing', () => {
    const schema: Schema = {
      type: 'object',
      properties: { name: { type: 'string', minLength: 1 }, age: { anyOf: [{ type: 'integer' }, { type: 'null' }], default: null }, tags: { type: 'array', items: { type: 'string' } }, ok: { type: 'boolean' } },
      required: ['name', 'ok']
    };
    const draft = initial(schema, schema, true);
    expect(draft).toEqual({ kind: 'fields', fields: { name: plain(''), age: { kind: 'absent' }, tags: { kind: 'absent' }, ok: { kind: 'truth', value: null } } });
    expect(answer(schema, draft)).toEqual({ '/name': 'An answer is needed.', '/ok': 'Choose yes or no.' });
    const filled: Draft = { kind: 'fields', fields: { name: plain('Ana'), age: { kind: 'absent' }, tags: { kind: 'items', items: [plain('a')] }, ok: { kind: 'truth', value: true } } };
    expect(answer(schema, filled)).toEqual({ name: 'Ana', tags: ['a'], ok: true });
  });

  it('give null for a required field that may be null', () => {
    const schema: Schema = { type: 'object', properties: { note: { type: ['string', 'null'] } }, required: ['note'] };
    expect(answer(schema, { kind: 'fields', fields: { note: { kind: 'absent' } } })).toEqual({ note: null });
  });

  it('begin with the defaults of the schema', () => {
    const schema: Schema = { type: 'object', properties: { city: { type: 'string', default: 'Vienna' }, n: { type: 'integer', default: 3 }, list: { type: 'array', items: { type: 'integer' }, default: [1, 2] } } };
    expect(answer(schema, initial(schema, schema, true))).toEqual({ city: 'Vienna', n: 3, list: [1, 2] });
  });

  it('check lists', () => {
    const schema: Schema = { type: 'array', items: { type: 'integer' }, minItems: 2, uniqueItems: true };
    expect(initial(schema, schema, true)).toEqual({ kind: 'items', items: [plain(''), plain('')] });
    expect(answer(schema, { kind: 'items', items: [plain('1')] })).toEqual({ '': 'At least 2 entries.' });
    expect(answer(schema, { kind: 'items', items: [plain('1'), plain('1')] })).toEqual({ '': 'No entry twice.' });
    expect(answer(schema, { kind: 'items', items: [plain('1'), plain('x')] })).toEqual({ '/1': 'Enter a whole number, such as 3.' });
  });

  it('take the chosen variant', () => {
    const schema: Schema = { anyOf: [{ type: 'string' }, { type: 'object', properties: { n: { type: 'integer' } }, required: ['n'] }] };
    expect(answer(schema, { kind: 'variant', index: 1, draft: { kind: 'fields', fields: { n: plain('4') } } })).toEqual({ n: 4 });
    expect(initial(schema, schema, true, { n: 4 })).toMatchObject({ kind: 'variant', index: 1 });
  });
});
