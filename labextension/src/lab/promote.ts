/** `%promote` from the toolbar: its name and tag are asked for, its output appears in a tab of its own. */

import { Dialog, InputDialog, MainAreaWidget, showDialog } from '@jupyterlab/apputils';
import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { NotebookPanel } from '@jupyterlab/notebook';
import { OutputAreaModel, SimplifiedOutputArea } from '@jupyterlab/outputarea';

const NAME = /^[A-Za-z][\w.-]*$/;

export async function promote(app: JupyterFrontEnd, panel: NotebookPanel): Promise<void> {
  const { sessionContext, context } = panel;
  const kernel = sessionContext.session?.kernel;
  if (!kernel) {
    await showDialog({
      title: 'Promote',
      body: 'This notebook has no kernel. Start one, then promote.',
      buttons: [Dialog.okButton()]
    });
    return;
  }
  const suggested = context.path.replace(/^.*\//, '').replace(/\.ipynb$/, '').replace(/[^\w.-]+/g, '-');
  const name = await ask('Promote this notebook as', suggested);
  if (name === null) return;
  const tag = await ask('Tag that shall point to the new version', 'default');
  if (tag === null) return;
  await context.save();
  const area = new SimplifiedOutputArea({ model: new OutputAreaModel({ trusted: true }), rendermime: panel.content.rendermime });
  const tab = new MainAreaWidget({ content: area });
  tab.title.label = `Promote ${name}`;
  tab.title.closable = true;
  tab.addClass('kt-promote');
  app.shell.add(tab, 'main', { mode: 'split-bottom', ref: panel.id });
  // It is no cell of the notebook, so that the kernel's history of what ran must not have it.
  const future = kernel.requestExecute({ code: `%promote ${name} --tag ${tag}`, store_history: false, stop_on_error: true });
  area.future = future;
  await future.done;
}

async function ask(title: string, text: string): Promise<string | null> {
  for (let shown = text; ; ) {
    const answer = await InputDialog.getText({ title, text: shown, label: shown === text ? undefined : 'Letters, digits, ".", "_" and "-", beginning with a letter:' });
    if (!answer.button.accept || answer.value === null) return null;
    if (NAME.test(answer.value)) return answer.value;
    shown = answer.value;
  }
}
