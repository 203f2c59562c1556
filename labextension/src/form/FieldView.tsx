/** One field of a form, and the fields inside it. */

import * as React from 'react';
import { useUniqueId } from '../hooks';
import { Text } from '../text';
import { fieldOf, initial, labelOf, propertiesOf, resolved, started, titleOf, type Draft, type Field, type Schema } from './schema';

export interface FieldProps {
  schema: unknown;
  root: Schema;
  draft: Draft;
  onChange(draft: Draft): void;
  path: string;
  name: string;
  required: boolean;
  problems: ReadonlyMap<string, string>;
}

const LONG_TEXT = 200;

export function FieldView(props: FieldProps): JSX.Element {
  const field = React.useMemo(() => fieldOf(props.schema, props.root), [props.schema, props.root]);
  const id = useUniqueId('field');
  const { draft } = props;
  const optional = !props.required || field.nullable;
  const label = props.path ? titleOf(props.schema, props.name) : (field.title ?? 'Answer');
  const problem = props.problems.get(props.path);
  const described = [field.description ? `${id}-about` : '', problem ? `${id}-problem` : ''].filter(Boolean).join(' ');

  const typed = ['text', 'number', 'integer', 'json', 'choice'].includes(field.kind);
  if (draft.kind === 'absent' && !typed) {
    return (
      <div className="kt-field kt-field-absent">
        <button type="button" className="kt-link" onClick={() => props.onChange(started(field, props.root, resolved(props.schema, props.root).default))}>
          + <Text>{label}</Text>
        </button>
        <span className="kt-mute">{field.nullable && props.required ? 'none' : 'optional'}</span>
        {problem ? <Problem id={`${id}-problem`} text={problem} /> : null}
      </div>
    );
  }
  const remove = optional && !typed ? (
    <button type="button" className="kt-link kt-field-remove" onClick={() => props.onChange({ kind: 'absent' })} aria-label={`Leave out ${label}`}>
      leave out
    </button>
  ) : null;
  const about = (
    <>
      {field.description ? (
        <p className="kt-field-about" id={`${id}-about`}>
          <Text>{field.description}</Text>
        </p>
      ) : null}
      {problem ? <Problem id={`${id}-problem`} text={problem} /> : null}
    </>
  );
  const grouped = ['object', 'list', 'variants', 'boolean', 'constant'].includes(field.kind) || draft.kind === 'variant';
  if (grouped) {
    return (
      <fieldset className={`kt-field kt-field-${field.kind}${props.path ? '' : ' kt-field-root'}`} aria-describedby={described || undefined}>
        <legend>
          <Text>{label}</Text>
          {remove}
        </legend>
        {about}
        <Inside {...props} field={field} id={id} />
      </fieldset>
    );
  }
  return (
    <div className={`kt-field kt-field-${field.kind}`}>
      <div className="kt-field-label">
        <label htmlFor={id}>
          <Text>{label}</Text>
        </label>
        {optional ? <span className="kt-field-optional">optional</span> : null}
      </div>
      <Input {...props} field={field} id={id} described={described} wrong={problem !== undefined} />
      {about}
    </div>
  );
}

function Problem(props: { id: string; text: string }): JSX.Element {
  return (
    <p className="kt-problem" id={props.id}>
      <Text>{props.text}</Text>
    </p>
  );
}

type InsideProps = FieldProps & { field: Field; id: string };

function Inside(props: InsideProps): JSX.Element | null {
  const { field, draft, root, onChange } = props;
  switch (draft.kind) {
    case 'truth':
      return (
        <div className="kt-choices">
          {([[true, 'Yes'], [false, 'No']] as const).map(([value, word]) => (
            <label key={word} className="kt-choice">
              <input type="radio" name={props.id} checked={draft.value === value} onChange={() => onChange({ kind: 'truth', value })} />
              {word}
            </label>
          ))}
        </div>
      );
    case 'pick':
      return (
        <p>
          <Text>{labelOf(field.values[0])}</Text>
        </p>
      );
    case 'fields':
      return (
        <>
          {propertiesOf(field).map(p => (
            <FieldView
              key={p.name}
              schema={p.schema}
              root={root}
              draft={draft.fields[p.name] ?? { kind: 'absent' }}
              onChange={inner => onChange({ kind: 'fields', fields: { ...draft.fields, [p.name]: inner } })}
              path={`${props.path}/${p.name}`}
              name={p.name}
              required={p.required}
              problems={props.problems}
            />
          ))}
        </>
      );
    case 'items':
      return <Items {...props} draft={draft} />;
    case 'variant':
      return (
        <>
          <select
            className="kt-input"
            aria-label="Kind"
            value={draft.index}
            onChange={event => {
              const index = Number((event.target as HTMLSelectElement).value);
              onChange({ kind: 'variant', index, draft: initial(field.variants[index], root, true) });
            }}
          >
            {field.variants.map((variant, i) => (
              <option key={i} value={i}>
                {variantName(variant, root)}
              </option>
            ))}
          </select>
          <FieldView
            key={draft.index}
            schema={field.variants[draft.index]}
            root={root}
            draft={draft.draft}
            onChange={inner => onChange({ ...draft, draft: inner })}
            path={props.path}
            name={props.name}
            required
            problems={props.problems}
          />
        </>
      );
    default:
      return null;
  }
}

function variantName(variant: Schema, root: Schema): string {
  const field = fieldOf(variant, root);
  return field.title ?? { boolean: 'Yes or no', text: 'Text', number: 'Number', integer: 'Whole number', list: 'List', object: 'Fields', json: 'JSON', choice: 'Choice', constant: labelOf(field.values[0]), variants: 'Other' }[field.kind];
}

function Items(props: InsideProps & { draft: Extract<Draft, { kind: 'items' }> }): JSX.Element {
  const { draft, field, root, onChange } = props;
  const most = typeof field.schema.maxItems === 'number' ? field.schema.maxItems : Infinity;
  const change = (items: Draft[]): void => onChange({ kind: 'items', items });
  return (
    <>
      <ol className="kt-items">
        {draft.items.map((item, i) => (
          <li key={i}>
            <FieldView
              schema={field.schema.items}
              root={root}
              draft={item}
              onChange={inner => change(draft.items.map((old, j) => (j === i ? inner : old)))}
              path={`${props.path}/${i}`}
              name={`Entry ${i + 1}`}
              required
              problems={props.problems}
            />
            <button type="button" className="kt-link" aria-label={`Remove entry ${i + 1}`} onClick={() => change(draft.items.filter((_, j) => j !== i))}>
              remove
            </button>
          </li>
        ))}
      </ol>
      {draft.items.length < most ? (
        <button type="button" className="kt-link" onClick={() => change([...draft.items, initial(field.schema.items, root, true)])}>
          + Add an entry
        </button>
      ) : null}
    </>
  );
}

function Input(props: InsideProps & { described: string; wrong: boolean }): JSX.Element {
  const { draft, field, onChange } = props;
  const common = {
    id: props.id,
    className: 'kt-input',
    'aria-describedby': props.described || undefined,
    'aria-invalid': props.wrong || undefined,
    'aria-required': props.required || undefined
  };
  const optional = !props.required || field.nullable;
  if (field.kind === 'choice') {
    const index = draft.kind === 'pick' ? draft.index : -1;
    const pick = (chosen: number): void => onChange(chosen < 0 && optional ? { kind: 'absent' } : { kind: 'pick', index: chosen });
    return (
      <select {...common} value={index} onChange={event => pick(Number((event.target as HTMLSelectElement).value))}>
        {optional || index < 0 ? <option value={-1}>{optional ? 'none' : 'Choose…'}</option> : null}
        {field.values.map((value, i) => (
          <option key={i} value={i}>
            {labelOf(value).slice(0, 200)}
          </option>
        ))}
      </select>
    );
  }
  const text = draft.kind === 'plain' ? draft.text : '';
  const set = (event: React.FormEvent): void => {
    const entered = (event.target as HTMLInputElement | HTMLTextAreaElement).value;
    // What may be left out is left out by leaving it empty.
    onChange(entered === '' && optional ? { kind: 'absent' } : { kind: 'plain', text: entered });
  };
  const most = field.schema.maxLength;
  const long = field.kind === 'json' || (field.kind === 'text' && field.schema.format === undefined && (!props.path || text.includes('\n') || (typeof most === 'number' && most > LONG_TEXT)));
  if (long) {
    return <textarea {...common} rows={field.kind === 'json' ? 5 : 4} value={text} onInput={set} spellCheck={field.kind !== 'json'} placeholder={field.kind === 'json' ? 'JSON' : undefined} />;
  }
  const numeric = field.kind === 'integer' || field.kind === 'number';
  const type = field.schema.format === 'date' ? 'date' : field.schema.format === 'password' ? 'password' : 'text';
  return <input {...common} type={type} inputMode={numeric ? (field.kind === 'integer' ? 'numeric' : 'decimal') : undefined} value={text} onInput={set} autoComplete="off" />;
}
