/** JSON Schema as fields of a form: what to ask, how a draft begins, and what an answer made of a draft is. */

export type Schema = Record<string, unknown>;

export type Kind = 'boolean' | 'text' | 'number' | 'integer' | 'choice' | 'constant' | 'object' | 'list' | 'variants' | 'json';

export interface Field {
  kind: Kind;
  title: string | null;
  description: string | null;
  schema: Schema;
  /** Whether null is an answer. */
  nullable: boolean;
  /** Values of a choice, or the one of a constant. */
  values: unknown[];
  /** Forms that a value of several kinds may have. */
  variants: Schema[];
}

/** What a person has entered so far. */
export type Draft =
  | { kind: 'plain'; text: string }
  | { kind: 'truth'; value: boolean | null }
  | { kind: 'pick'; index: number }
  | { kind: 'fields'; fields: Record<string, Draft> }
  | { kind: 'items'; items: Draft[] }
  | { kind: 'variant'; index: number; draft: Draft }
  | { kind: 'absent' };

export interface Read {
  value: unknown;
  /** Path of a field ("" is the whole, "/name/0" below it) → what is wrong there. */
  problems: Map<string, string>;
}

const REFERENCES = 32;

/** A schema with its references followed and `allOf` merged; never more than a few steps. */
export function resolved(schema: unknown, root: Schema): Schema {
  let found: Schema = isSchema(schema) ? schema : {};
  for (let step = 0; step < REFERENCES; step += 1) {
    if (typeof found.$ref === 'string') {
      const { $ref, ...beside } = found;
      found = { ...target($ref as string, root), ...beside };
    } else if (Array.isArray(found.allOf)) {
      const { allOf, ...beside } = found;
      found = (allOf as unknown[]).reduce<Schema>((all, one) => merged(all, resolved(one, root)), beside);
    } else {
      return found;
    }
  }
  return {};
}

function target(reference: string, root: Schema): Schema {
  if (reference === '#') return root;
  if (!reference.startsWith('#/')) return {};
  let at: unknown = root;
  for (const part of reference.slice(2).split('/')) {
    const name = decodeURIComponent(part).replace(/~1/g, '/').replace(/~0/g, '~');
    at = isSchema(at) && Object.prototype.hasOwnProperty.call(at, name) ? at[name] : undefined;
  }
  return isSchema(at) ? at : {};
}

function merged(one: Schema, other: Schema): Schema {
  const all: Schema = { ...other, ...one };
  if (isSchema(one.properties) && isSchema(other.properties)) all.properties = { ...one.properties, ...other.properties };
  if (Array.isArray(one.required) && Array.isArray(other.required)) all.required = [...new Set([...one.required, ...other.required])];
  return all;
}

function isSchema(value: unknown): value is Schema {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

/** What to ask for one schema; of what is inside it only the schemas. */
export function fieldOf(schema: unknown, root: Schema): Field {
  const found = resolved(schema, root);
  const base = { title: text(found.title), description: text(found.description), nullable: false, values: [], variants: [] };
  const parts = (found.anyOf ?? found.oneOf) as unknown;
  if (Array.isArray(parts) && parts.length) {
    const some = parts.map(p => resolved(p, root)).filter(p => p.type !== 'null');
    const nullable = some.length < parts.length;
    if (some.length === 1) {
      const only = fieldOf(some[0], root);
      return { ...only, title: base.title ?? only.title, description: base.description ?? only.description, nullable: nullable || only.nullable };
    }
    return { ...base, kind: 'variants', schema: found, nullable, variants: some };
  }
  const types = Array.isArray(found.type) ? (found.type as unknown[]) : found.type === undefined ? [] : [found.type];
  const some = types.filter(t => t !== 'null');
  const nullable = some.length < types.length;
  if ('const' in found) return { ...base, kind: 'constant', schema: found, values: [found.const] };
  if (Array.isArray(found.enum)) {
    const values = (found.enum as unknown[]).filter(v => v !== null);
    return { ...base, kind: 'choice', schema: found, values, nullable: nullable || values.length < found.enum.length };
  }
  if (some.length > 1) return { ...base, kind: 'variants', schema: found, nullable, variants: some.map(type => ({ ...found, type, title: undefined })) };
  return { ...base, kind: kindOf(some[0], found), schema: found, nullable };
}

function kindOf(type: unknown, schema: Schema): Kind {
  switch (type) {
    case 'boolean':
      return 'boolean';
    case 'string':
      return 'text';
    case 'number':
      return 'number';
    case 'integer':
      return 'integer';
    case 'object':
      return isSchema(schema.properties) && Object.keys(schema.properties).length ? 'object' : 'json';
    case 'array':
      return isSchema(schema.items) ? 'list' : 'json';
    default:
      return isSchema(schema.properties) && Object.keys(schema.properties).length ? 'object' : 'json';
  }
}

export function propertiesOf(field: Field): { name: string; schema: unknown; required: boolean }[] {
  const required = new Set(Array.isArray(field.schema.required) ? (field.schema.required as unknown[]) : []);
  const properties = isSchema(field.schema.properties) ? field.schema.properties : {};
  return Object.entries(properties).map(([name, schema]) => ({ name, schema, required: required.has(name) }));
}

/** How a draft begins: with `given`, else with the schema's default, else empty. */
export function initial(schema: unknown, root: Schema, required: boolean, given?: unknown): Draft {
  const field = fieldOf(schema, root);
  const start = given !== undefined ? given : (resolved(schema, root).default ?? field.schema.default);
  if (start === undefined && !required) return { kind: 'absent' };
  if (start === null) return field.nullable || !required ? { kind: 'absent' } : started(field, root, undefined);
  return started(field, root, start);
}

/** The draft of a field that is to be filled in. */
export function started(field: Field, root: Schema, start: unknown): Draft {
  switch (field.kind) {
    case 'boolean':
      return { kind: 'truth', value: typeof start === 'boolean' ? start : null };
    case 'choice':
      return { kind: 'pick', index: field.values.findIndex(v => same(v, start)) };
    case 'constant':
      return { kind: 'pick', index: 0 };
    case 'object': {
      const given = isSchema(start) ? start : {};
      const fields = propertiesOf(field).map(p => [p.name, initial(p.schema, root, p.required, own(given, p.name))] as const);
      return { kind: 'fields', fields: Object.fromEntries(fields) };
    }
    case 'list': {
      const least = typeof field.schema.minItems === 'number' ? Math.min(field.schema.minItems, 20) : 0;
      const given = Array.isArray(start) ? start : Array.from({ length: least }, () => undefined);
      return { kind: 'items', items: given.map(item => initial(field.schema.items, root, true, item)) };
    }
    case 'variants': {
      const index = start === undefined ? 0 : Math.max(0, field.variants.findIndex(v => fits(v, start, root)));
      return { kind: 'variant', index, draft: initial(field.variants[index], root, true, start) };
    }
    case 'json':
      return { kind: 'plain', text: start === undefined ? '' : JSON.stringify(start, null, 2) };
    default:
      return { kind: 'plain', text: start === undefined ? '' : String(start) };
  }
}

function own(given: Schema, name: string): unknown {
  return Object.prototype.hasOwnProperty.call(given, name) ? given[name] : undefined;
}

function fits(schema: Schema, value: unknown, root: Schema): boolean {
  const field = fieldOf(schema, root);
  switch (field.kind) {
    case 'boolean':
      return typeof value === 'boolean';
    case 'text':
      return typeof value === 'string';
    case 'number':
      return typeof value === 'number';
    case 'integer':
      return Number.isInteger(value);
    case 'list':
      return Array.isArray(value);
    case 'object':
      return isSchema(value);
    default:
      return field.values.some(v => same(v, value));
  }
}

function same(one: unknown, other: unknown): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}

/** The answer that a draft means, and everything that is wrong with it. `undefined` stands for leaving it out. */
export function read(schema: unknown, root: Schema, draft: Draft): Read {
  const problems = new Map<string, string>();
  return { value: readAt(fieldOf(schema, root), root, draft, '', problems), problems };
}

function readAt(field: Field, root: Schema, draft: Draft, path: string, problems: Map<string, string>): unknown {
  const wrong = (message: string): undefined => void problems.set(path, message);
  switch (draft.kind) {
    case 'absent':
      return field.nullable ? null : undefined;
    case 'truth':
      return draft.value === null ? wrong('Choose yes or no.') : draft.value;
    case 'pick':
      return draft.index < 0 ? wrong('Choose one.') : field.values[draft.index];
    case 'variant':
      return readAt(fieldOf(field.variants[draft.index], root), root, draft.draft, path, problems);
    case 'fields':
      return readFields(field, root, draft.fields, path, problems);
    case 'items': {
      const items = draft.items.map((item, i) => readAt(fieldOf(field.schema.items, root), root, item, `${path}/${i}`, problems));
      const problem = listProblem(field.schema, items);
      return problem ? wrong(problem) : items.map(item => (item === undefined ? null : item));
    }
    case 'plain':
      return readPlain(field, draft.text, wrong);
  }
}

function readFields(field: Field, root: Schema, fields: Record<string, Draft>, path: string, problems: Map<string, string>): unknown {
  const found: Record<string, unknown> = {};
  for (const { name, schema, required } of propertiesOf(field)) {
    const draft = fields[name] ?? { kind: 'absent' };
    const inner = fieldOf(schema, root);
    const value = readAt(inner, root, draft, `${path}/${name}`, problems);
    const leftOut = draft.kind === 'absent' && !required;
    if (value !== undefined && !leftOut) found[name] = value;
    else if (value === undefined && required && !problems.has(`${path}/${name}`)) problems.set(`${path}/${name}`, 'An answer is needed.');
  }
  return found;
}

function readPlain(field: Field, entered: string, wrong: (message: string) => undefined): unknown {
  if (field.kind === 'text') {
    const problem = textProblem(field.schema, entered);
    return problem ? wrong(problem) : entered;
  }
  const trimmed = entered.trim();
  if (!trimmed) return wrong(field.kind === 'json' ? 'Enter JSON.' : 'Enter a number.');
  if (field.kind === 'json') {
    try {
      return JSON.parse(trimmed) as unknown;
    } catch (error) {
      return wrong(`This is no JSON: ${(error as Error).message}`);
    }
  }
  if (field.kind === 'integer') {
    if (!/^[+-]?\d+$/.test(trimmed)) return wrong('Enter a whole number, such as 3.');
    const exact = BigInt(trimmed.replace(/^\+/, ''));
    const value = Number(exact);
    const problem = numberProblem(field.schema, value);
    return problem ? wrong(problem) : Number.isSafeInteger(value) ? value : exact;
  }
  if (!/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(trimmed)) return wrong('Enter a number, such as 0.5.');
  const value = Number(trimmed);
  if (!Number.isFinite(value)) return wrong('This number is too large.');
  const problem = numberProblem(field.schema, value);
  return problem ? wrong(problem) : value;
}

function numberProblem(schema: Schema, value: number): string | null {
  const limit = (name: string): number | null => (typeof schema[name] === 'number' ? (schema[name] as number) : null);
  const least = limit('minimum');
  const most = limit('maximum');
  const above = limit('exclusiveMinimum');
  const below = limit('exclusiveMaximum');
  const step = limit('multipleOf');
  if (least !== null && value < least) return `At least ${least}.`;
  if (most !== null && value > most) return `At most ${most}.`;
  if (above !== null && value <= above) return `More than ${above}.`;
  if (below !== null && value >= below) return `Less than ${below}.`;
  if (step !== null && step > 0 && Math.abs(value / step - Math.round(value / step)) > 1e-9) return `A multiple of ${step}.`;
  return null;
}

function textProblem(schema: Schema, value: string): string | null {
  // Lengths count characters, as Python and JSON Schema do, not UTF-16 units.
  const length = [...value].length;
  if (typeof schema.minLength === 'number' && length < schema.minLength) {
    return length === 0 ? 'An answer is needed.' : `At least ${schema.minLength} characters; these are ${length}.`;
  }
  if (typeof schema.maxLength === 'number' && length > schema.maxLength) return `At most ${schema.maxLength} characters; these are ${length}.`;
  if (typeof schema.pattern === 'string' && !matches(schema.pattern, value)) return `It must match ${schema.pattern}`;
  return null;
}

function matches(pattern: string, value: string): boolean {
  try {
    return new RegExp(pattern, 'u').test(value);
  } catch {
    return true; // a pattern of another dialect: the server decides
  }
}

function listProblem(schema: Schema, items: readonly unknown[]): string | null {
  if (typeof schema.minItems === 'number' && items.length < schema.minItems) return `At least ${schema.minItems} entries.`;
  if (typeof schema.maxItems === 'number' && items.length > schema.maxItems) return `At most ${schema.maxItems} entries.`;
  if (schema.uniqueItems === true && new Set(items.map(i => String(JSON.stringify(i)))).size < items.length) return 'No entry twice.';
  return null;
}

function text(value: unknown): string | null {
  return typeof value === 'string' && value ? value : null;
}

/** A value of a choice as people read it. */
export function labelOf(value: unknown): string {
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? 'null');
}

/** What a field of an object, or an entry of a list, is called. The title of a type that it refers to names the type: two
 *  fields of one type would look the same. */
export function titleOf(schema: unknown, name: string): string {
  return (isSchema(schema) ? text(schema.title) : null) ?? humanize(name);
}

/** A name from code as a label: `due_date` → `Due date`. */
export function humanize(name: string): string {
  const words = name.replace(/[_-]+/g, ' ').trim();
  return words ? words[0]!.toUpperCase() + words.slice(1) : name;
}
