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

/** Whether nothing is left to do by hand after an action. */
export function byItself(started: Started, open: boolean): boolean {
  return open || (!started.elsewhere && !started.by_notebook);
}

/** What an action set in motion, in words. `open`: it has gone on, or a notebook of this page does so by itself. */
export function inWords(started: Started, open = false): string {
  if (started.elsewhere && !open) return `Nothing goes on yet: only the Python process that started it can. There, type KitaruClient().executions.resume('${started.exec_id}').`;
  if (!started.by_notebook) return 'The execution goes on.';
  return open ? 'The notebook goes on.' : 'Run the notebook’s cell again, or Run All, to go on.';
}
