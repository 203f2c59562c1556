/**
 * Whether an open notebook goes on by itself after an answer: a form asks before it sends, the JupyterLab extension says.
 * The two may come from different bundles, so that the page is all that they share.
 */

import type { Started } from './model';

const ASKED = 'kitaru:goes-on';

export function goesOn(execId: string, waitId: string): boolean {
  return !document.dispatchEvent(new CustomEvent(ASKED, { cancelable: true, detail: [execId, waitId] }));
}

/** Answer all forms of the page from now on. */
export function tellWhatGoesOn(does: (execId: string, waitId: string) => boolean): void {
  document.addEventListener(ASKED, event => {
    const [execId, waitId] = (event as CustomEvent<[string, string]>).detail;
    if (does(execId, waitId)) event.preventDefault();
  });
}

/** What an action set in motion, in words. `open`: a notebook of this page goes on by itself. */
export function inWords(started: Started, open = false): string {
  if (!started.by_notebook) return 'The execution goes on.';
  return open ? 'The notebook goes on.' : 'Run the notebook’s cell again, or Run All, to go on.';
}
