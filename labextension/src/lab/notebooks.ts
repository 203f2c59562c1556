/** The open notebooks: facts of their cells, badges on them, and going on after an answer. */

import type { ISessionContext } from '@jupyterlab/apputils';
import type { Cell, CodeCell, ICodeCellModel } from '@jupyterlab/cells';
import { NotebookActions, type INotebookTracker, type NotebookPanel } from '@jupyterlab/notebook';
import type { Kernel } from '@jupyterlab/services';
import type { Host } from '../hooks';
import type { Change } from '../api';
import { badgesOf, executionOf, NOTHING_READ, readsOf, recordedIn, waitingCell, type Badge, type CellFacts, type Reads } from './cells';

const SETTLE_MS = 120;
const ANSWER_MS = 300;
const TRIES = 20;
const RETRY_MS = 1000;
/** After these a kernel knows no variable. */
const ENDS: ReadonlySet<Kernel.Status> = new Set(['restarting', 'autorestarting', 'terminating', 'dead']);
const WORDS: Record<Badge['state'], string> = {
  fresh: 'fresh',
  cached: 'cached',
  stale: 'stale',
  running: 'running',
  waiting: 'waiting',
  partial: 'partial',
  failed: 'failed'
};

export interface NotebooksOptions {
  host: Host;
  /** Show why a cell has its badge, beside `anchor`. */
  explain(badge: Badge, anchor: HTMLElement, panel: NotebookPanel): void;
  badges(): boolean;
  continues(): boolean;
}

/** Watches all notebooks of a tracker. */
export class Notebooks {
  private readonly watched = new Map<NotebookPanel, NotebookWatch>();

  constructor(
    tracker: INotebookTracker,
    private readonly options: NotebooksOptions
  ) {
    tracker.forEach(panel => this.watch(panel));
    tracker.widgetAdded.connect((_, panel) => this.watch(panel));
    options.host.live.subscribe(null, (changes, missed) => this.heard(changes, missed));
  }

  refresh(): void {
    this.watched.forEach(watch => watch.schedule());
  }

  executionOf(panel: NotebookPanel | null): string | null {
    return panel ? (this.watched.get(panel)?.execution() ?? null) : null;
  }

  /** Whether an open notebook runs on once this wait is answered. */
  goesOn(execId: string, waitId: string): boolean {
    return [...this.watched.values()].some(watch => watch.goesOn(execId, waitId));
  }

  private watch(panel: NotebookPanel): void {
    if (this.watched.has(panel)) return;
    const watch = new NotebookWatch(panel, this.options);
    this.watched.set(panel, watch);
    panel.disposed.connect(() => {
      watch.dispose();
      this.watched.delete(panel);
    });
  }

  private heard(changes: readonly Change[], missed: boolean): void {
    if (missed) this.watched.forEach(watch => watch.lookAtQuestions(true));
    for (const change of changes) {
      if (change.kind !== 'wait.resolved') continue;
      for (const watch of this.watched.values()) watch.answered(change.exec_id, change.key);
    }
  }
}

/** One notebook. */
class NotebookWatch {
  private readonly ran = new WeakMap<ICodeCellModel, string>();
  /** How many lives of the kernel this page has seen end: a restart keeps its id, but not its variables. */
  private lives = 0;
  private readonly ranInLife = new WeakMap<ICodeCellModel, number>();
  private readonly known = new WeakSet<ICodeCellModel>();
  private reads: { key: string; value: Reads } = { key: '', value: NOTHING_READ };
  private newest: string | null = null;
  /** Questions that its cells show: whether this page has seen each of them open. */
  private readonly seenOpen = new Map<string, boolean>();
  /** Answered while cells ran: it goes on when they have ended. */
  private due: [execId: string, waitId: string][] = [];
  private goingOn = false;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly panel: NotebookPanel,
    private readonly options: NotebooksOptions
  ) {
    void panel.context.ready.then(() => {
      if (panel.isDisposed) return;
      panel.content.model?.cells.changed.connect(() => this.schedule());
      panel.content.modelContentChanged?.connect(() => this.schedule());
      NotebookActions.executionScheduled.connect(this.onScheduled, this);
      NotebookActions.executed.connect(this.onExecuted, this);
      panel.sessionContext.statusChanged.connect(this.onStatus, this);
      panel.sessionContext.kernelChanged.connect(this.onKernel, this);
      this.schedule();
    });
  }

  dispose(): void {
    clearTimeout(this.timer);
    NotebookActions.executionScheduled.disconnect(this.onScheduled, this);
    NotebookActions.executed.disconnect(this.onExecuted, this);
    this.panel.sessionContext.statusChanged.disconnect(this.onStatus, this);
    this.panel.sessionContext.kernelChanged.disconnect(this.onKernel, this);
  }

  /** Draw the badges soon; many changes at once are one drawing. */
  schedule(): void {
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      if (!this.panel.isDisposed) this.draw();
    }, SETTLE_MS);
  }

  /** The execution that the notebook is on; while a run has cleared the outputs that name it, the one before. */
  execution(): string | null {
    this.newest = executionOf(this.facts()) ?? this.newest;
    return this.newest;
  }

  goesOn(execId: string, waitId: string): boolean {
    return this.options.continues() && waitingCell(this.facts(), execId, waitId) >= 0;
  }

  /** A wait was answered: after a moment in which whoever answered may go on by hand, run on from its cell. */
  answered(execId: string, waitId: string): void {
    if (this.goesOn(execId, waitId)) setTimeout(() => void this.goOn(execId, waitId), ANSWER_MS);
  }

  /**
   * Ask how the questions stand that the cells show: those that are new here, as the answer may have come before the question was
   * drawn, or all, where news may have been missed. What was answered before this page was there is nobody's wish to go on now.
   */
  lookAtQuestions(all: boolean): void {
    for (const cell of this.cells()) {
      const recorded = recordedIn(this.factsOf(cell).outputs);
      if (recorded?.status !== 'waiting' || recorded.wait === null) continue;
      const { execution, wait } = recorded;
      const key = `${execution} ${wait}`;
      if (this.seenOpen.has(key) && !all) continue;
      const wanted = this.seenOpen.get(key) || this.ranInLife.has(cell.model);
      this.seenOpen.set(key, wanted);
      this.options.host.api.wait(execution, wait).then(
        found => {
          if (found.status === 'pending') this.seenOpen.set(key, true);
          else if (wanted) this.answered(execution, wait);
        },
        () => undefined // without the server nobody hears of answers; when it is back, all are looked at
      );
    }
  }

  private async goOn(execId: string, waitId: string): Promise<void> {
    if (this.panel.isDisposed) return;
    if (this.goingOn || this.facts().some(cell => cell.running)) {
      this.due.push([execId, waitId]);
      return;
    }
    this.goingOn = true;
    try {
      await this.runFrom(execId, waitId);
    } finally {
      this.goingOn = false;
      this.schedule();
    }
  }

  private async runFrom(execId: string, waitId: string): Promise<void> {
    const { panel } = this;
    const { sessionContext } = panel;
    if (!this.goesOn(execId, waitId) || sessionContext.isDisposed || !(await answers(sessionContext)) || panel.isDisposed) return;
    const facts = this.facts();
    if (facts.some(cell => cell.running)) {
      this.due.push([execId, waitId]);
      return;
    }
    const at = waitingCell(facts, execId, waitId);
    const cell = panel.content.widgets[at];
    if (!cell) return;
    const same = this.ranInLife.get(cell.model as ICodeCellModel) === this.lives;
    panel.content.activeCellIndex = at;
    await panel.content.scrollToItem(at);
    // A fresh kernel knows no variable: it begins at the top, where finished checkpoints come back at once.
    await NotebookActions.runCells(panel.content, panel.content.widgets.slice(same ? at : 0), sessionContext);
  }

  private onScheduled(_: unknown, args: { notebook: unknown; cell: Cell }): void {
    if (args.notebook !== this.panel.content) return;
    const model = args.cell.model as ICodeCellModel;
    this.ran.set(model, model.sharedModel.getSource());
    this.ranInLife.set(model, this.lives);
    this.schedule();
  }

  private onStatus(_: unknown, status: Kernel.Status): void {
    if (ENDS.has(status)) this.lives += 1;
  }

  private onKernel(): void {
    this.lives += 1;
  }

  private onExecuted(_: unknown, args: { notebook: unknown }): void {
    if (args.notebook === this.panel.content) this.schedule();
  }

  private cells(): CodeCell[] {
    return this.panel.content.widgets.filter(cell => !cell.isDisposed && cell.model?.type === 'code') as CodeCell[];
  }

  private facts(): CellFacts[] {
    return this.panel.content.widgets.map(cell => this.factsOf(cell));
  }

  private factsOf(cell: Cell): CellFacts {
    const model = cell.isDisposed ? null : cell.model;
    if (model?.type !== 'code') return { id: model?.id ?? '', source: '', tags: [], running: false, outputs: [], ranSource: null };
    const code = model as ICodeCellModel;
    const source = code.sharedModel.getSource();
    // A notebook is saved with what it ran: until somebody edits it here, that is its source.
    if (!this.known.has(code)) {
      this.known.add(code);
      if (!this.ran.has(code) && code.outputs.length) this.ran.set(code, source);
      code.contentChanged.connect(() => this.schedule());
      code.stateChanged.connect(() => this.schedule());
      code.outputs.changed.connect(() => this.schedule());
    }
    const outputs = [];
    for (let i = 0; i < code.outputs.length; i += 1) {
      const output = code.outputs.get(i);
      const json = output.type === 'error' ? (output.toJSON() as { ename?: string; evalue?: string }) : {};
      outputs.push({ type: output.type, metadata: output.metadata, ename: json.ename, evalue: json.evalue });
    }
    const tags = code.getMetadata('tags') as unknown;
    return {
      id: code.id,
      source,
      tags: Array.isArray(tags) ? tags.map(String) : [],
      running: code.executionState === 'running',
      outputs,
      ranSource: this.ran.get(code) ?? null
    };
  }

  private draw(): void {
    const shown = this.options.badges();
    const facts = this.facts();
    this.lookAtQuestions(false);
    for (const [execId, waitId] of this.due.splice(0)) void this.goOn(execId, waitId);
    this.readGraph(facts);
    const badges = shown ? badgesOf(facts, this.reads.value) : new Map<string, Badge>();
    for (const cell of this.cells()) drawBadge(cell.node, badges.get(cell.model.id) ?? null, (badge, anchor) => this.options.explain(badge, anchor, this.panel));
  }

  /** What the calls of this notebook read, fetched when its cells show other calls than before. */
  private readGraph(facts: readonly CellFacts[]): void {
    const execution = executionOf(facts);
    const key = [execution, ...facts.map(cell => recordedIn(cell.outputs)?.call ?? '')].join(' ');
    if (execution === null || key === this.reads.key) return;
    this.reads = { key, value: this.reads.value };
    this.options.host.api.graph(execution).then(
      graph => {
        if (this.reads.key !== key) return;
        this.reads = { key, value: readsOf(graph) };
        this.schedule();
      },
      () => undefined // without the server, staleness is told from the cells alone
    );
  }
}

/**
 * Wait until the notebook's kernel answers, and start one if there is none. A kernel that was killed looks alive for some
 * seconds, and what is sent to it then is lost when the server starts it again.
 */
async function answers(sessionContext: ISessionContext): Promise<boolean> {
  for (let tries = 0; tries < TRIES && !sessionContext.isDisposed; tries += 1) {
    try {
      if (!sessionContext.session?.kernel) await sessionContext.startKernel();
      else if (sessionContext.session.kernel.status === 'dead') await sessionContext.restartKernel();
      if (await sessionContext.session?.kernel?.requestKernelInfo()) return true;
    } catch {
      console.info('kitaru: the kernel went away; the notebook goes on with the next one.');
    }
    await new Promise(again => setTimeout(again, RETRY_MS));
  }
  return false;
}

/** Put a badge on a cell, change it, or take it away. */
function drawBadge(node: HTMLElement, badge: Badge | null, explain: (badge: Badge, anchor: HTMLElement) => void): void {
  let button = node.querySelector<HTMLButtonElement>(':scope > .kt-cell-badge');
  if (!badge) {
    button?.remove();
    delete node.dataset.kitaru;
    return;
  }
  if (!button) {
    button = document.createElement('button');
    button.type = 'button';
    button.className = 'kt-cell-badge';
    button.append(document.createElement('span'), document.createElement('span'));
    node.append(button);
  }
  node.dataset.kitaru = badge.state;
  if (button.dataset.state !== badge.state) {
    button.dataset.state = badge.state;
    button.lastElementChild!.textContent = WORDS[badge.state];
  }
  button.title = badge.why;
  button.setAttribute('aria-label', `Checkpoint is ${WORDS[badge.state]}. Why?`);
  const anchor = button;
  button.onclick = event => {
    event.stopPropagation();
    explain(badge, anchor);
  };
}
