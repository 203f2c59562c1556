/** Two texts side by side, what is the same folded away. */

import * as React from 'react';
import { count } from '../format';
import { Text } from '../text';
import { diffLines, folded } from './diff';

const PAGE = 400;
const LONGEST = 2000;

export function DiffTable(props: { left: string; right: string; names: [string, string] }): JSX.Element {
  const { left, right } = props;
  const rows = React.useMemo(() => folded(diffLines(left, right)), [left, right]);
  const [shown, setShown] = React.useState(PAGE);
  if (left === right) return <p className="kt-mute">Both are the same.</p>;
  return (
    <div className="kt-diff" role="group" tabIndex={0} aria-label={`Differences of ${props.names.join(' and ')}`}>
      <table>
        <tbody>
          {rows.slice(0, shown).map((row, i) =>
            typeof row === 'number' ? (
              <tr key={i} className="kt-diff-fold">
                <td colSpan={4}>{count(row)} equal lines</td>
              </tr>
            ) : (
              <tr key={i} className={`kt-diff-${row.kind}`}>
                <td className="kt-diff-number">{row.left ?? ''}</td>
                <td className="kt-diff-number">{row.right ?? ''}</td>
                <td className="kt-diff-sign">
                  {row.kind === 'same' ? ' ' : row.kind === 'left' ? '−' : '+'}
                  <span className="kt-hidden">{row.kind === 'same' ? '' : row.kind === 'left' ? 'removed' : 'added'}</span>
                </td>
                <td className="kt-diff-text">
                  <Text>{row.text.length > LONGEST ? `${row.text.slice(0, LONGEST)}…` : row.text}</Text>
                </td>
              </tr>
            )
          )}
        </tbody>
      </table>
      {rows.length > shown ? (
        <button type="button" className="kt-link" onClick={() => setShown(shown + PAGE)}>
          {count(rows.length - shown)} more lines
        </button>
      ) : null}
    </div>
  );
}
