/** Text that users or models wrote: always text, never HTML; what could deceive is visible, what is long is cut. */

import * as React from 'react';
import { bytes, pieces } from './format';

const FIRST = 4000;
const STEP = 40_000;
/** A line without a break this long makes browsers lay out for seconds; it is broken for display. */
const LONGEST_LINE = 5000;

export function Text(props: { children: string }): JSX.Element {
  const parts = pieces(props.children);
  if (parts.length === 1) return <>{parts[0]}</>;
  return (
    <>
      {parts.map((part, i) =>
        i % 2 === 0 || !part ? (
          part
        ) : (
          <span key={i} className="kt-control" title="a control character">
            {part}
          </span>
        )
      )}
    </>
  );
}

/** A block of text that shows its beginning, and more when asked. */
export function LongText(props: { text: string; label: string; className?: string; first?: number }): JSX.Element {
  const first = props.first ?? FIRST;
  const [shown, setShown] = React.useState(first);
  React.useEffect(() => setShown(first), [props.text, first]);
  const cut = props.text.length > shown;
  const part = cut ? props.text.slice(0, whole(props.text, shown)) : props.text;
  return (
    <div className={`kt-long ${props.className ?? ''}`}>
      <pre className="kt-pre" tabIndex={0} role="group" aria-label={props.label}>
        <Text>{broken(part)}</Text>
        {cut ? '…' : ''}
      </pre>
      {cut ? (
        <button type="button" className="kt-link" onClick={() => setShown(shown + STEP)}>
          Show more ({bytes(props.text.length - shown)} left)
        </button>
      ) : null}
    </div>
  );
}

/** A place near `at` that doesn't cut a character in two. */
function whole(text: string, at: number): number {
  const code = text.charCodeAt(at - 1);
  return code >= 0xd800 && code <= 0xdbff ? at - 1 : at;
}

function broken(text: string): string {
  if (text.length <= LONGEST_LINE) return text;
  return text.replace(new RegExp(`[^\\n]{${LONGEST_LINE}}`, 'gu'), '$&\n');
}
