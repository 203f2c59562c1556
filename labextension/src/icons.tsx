/** Drawn glyphs: a status is told by its shape, and by its colour. */

import * as React from 'react';

const DISC = 'M8 1a7 7 0 1 1 0 14A7 7 0 0 1 8 1Z';

interface Glyph {
  tone: string;
  word: string;
  solid?: boolean;
  path: string;
}

const CHECK = 'M4.9 8.2l2.2 2.2 4-4.6';
const CROSS = 'M5.6 5.6l4.8 4.8M10.4 5.6l-4.8 4.8';
const PAUSE = 'M6.3 5.4v5.2M9.7 5.4v5.2';
const AGAIN = 'M11 8a3 3 0 1 1-.9-2.1M10.3 4.2v1.9H8.4';

export const STATUSES: Record<string, Glyph> = {
  completed: { tone: 'good', word: 'completed', solid: true, path: CHECK },
  reused: { tone: 'info', word: 'reused', path: AGAIN },
  failed: { tone: 'bad', word: 'failed', solid: true, path: CROSS },
  running: { tone: 'busy', word: 'running', path: '' },
  waiting: { tone: 'warn', word: 'waiting', solid: true, path: PAUSE },
  pending: { tone: 'mute', word: 'pending', path: '' },
  asked: { tone: 'warn', word: 'waiting for an answer', solid: true, path: PAUSE },
  resolved: { tone: 'good', word: 'answered', path: CHECK },
  aborted: { tone: 'mute', word: 'aborted', path: 'M5 8h6' },
  cancelled: { tone: 'mute', word: 'cancelled', path: 'M5 8h6' },
  interrupted: { tone: 'warn', word: 'interrupted', path: 'M8 4.6v4M8 11v.4' },
  input: { tone: 'mute', word: 'input', path: 'M6 5.4L8.8 8 6 10.6' },
  artifact: { tone: 'mute', word: 'artifact', path: 'M5.5 6h5M5.5 8h5M5.5 10h3' }
};

export function statusWord(status: string): string {
  return STATUSES[status]?.word ?? status;
}

/** The glyph of a status. With `label` it stands alone and says what it means. */
export function StatusIcon(props: { status: string; label?: boolean }): JSX.Element {
  const glyph = STATUSES[props.status] ?? STATUSES.pending!;
  const name = props.label ? { role: 'img', 'aria-label': statusWord(props.status) } : { 'aria-hidden': true as const };
  const shape = glyph.solid ? 'kt-icon-solid' : 'kt-icon-line';
  return (
    <svg className={`kt-icon kt-tone-${glyph.tone} ${shape}`} viewBox="0 0 16 16" width="16" height="16" {...name}>
      <path className="kt-icon-disc" d={DISC} />
      {props.status === 'running' ? <path className="kt-icon-spin" d="M8 2.2a5.8 5.8 0 0 1 5.8 5.8" /> : null}
      {glyph.path ? <path className="kt-icon-mark" d={glyph.path} /> : null}
    </svg>
  );
}

/** A status as glyph and word. */
export function Status(props: { status: string }): JSX.Element {
  return (
    <span className="kt-status">
      <StatusIcon status={props.status} />
      <span>{statusWord(props.status)}</span>
    </span>
  );
}

export function Chevron(props: { open: boolean }): JSX.Element {
  return (
    <svg className={`kt-chevron${props.open ? ' kt-open' : ''}`} viewBox="0 0 16 16" width="12" height="12" aria-hidden="true">
      <path d="M6 3.5L10.5 8 6 12.5" />
    </svg>
  );
}

const TYPES: Record<string, string> = {
  model_call: 'model',
  llm_call: 'model',
  tool_call: 'tool',
  mcp_call: 'mcp',
  agent_run: 'agent',
  cell: 'cell'
};

/** A checkpoint's type as one word. */
export function typeWord(type: string | null): string {
  return type ? (TYPES[type] ?? type) : '';
}
