/** News of executions: the first is told at once, what follows is brought together, so that a busy one doesn't redraw the page
 * a thousand times a second. */

import type { Change, Transport } from './api';

const GATHER_MS = 100;

/** Hears what changed. `missed`: there may have been more that nobody tells any more; then it is called in any case. */
type Listener = (changes: readonly Change[], missed: boolean) => void;

export class Live {
  private readonly listeners = new Map<Listener, string | null>();
  private readonly stateListeners = new Set<() => void>();
  private gathered: Change[] = [];
  private reset = false;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private stop: (() => void) | null = null;
  connected = true;

  constructor(private readonly transport: Transport) {}

  /** Hear of one execution's changes, or of all with `null`. The first listener opens the connection, the last one closes it. */
  subscribe(execId: string | null, listener: Listener): () => void {
    this.listeners.set(listener, execId);
    this.stop ??= this.transport.listen(change => this.take(change), connected => this.setState(connected));
    return () => {
      this.listeners.delete(listener);
      if (this.listeners.size === 0) {
        this.stop?.();
        this.stop = null;
        clearTimeout(this.timer);
        this.timer = undefined;
        this.gathered = [];
        this.reset = false;
      }
    };
  }

  onState(listener: () => void): () => void {
    this.stateListeners.add(listener);
    return () => this.stateListeners.delete(listener);
  }

  private setState(connected: boolean): void {
    // What was asked while the line was down is asked again.
    if (connected && !this.connected) this.take('reset');
    if (connected !== this.connected) {
      this.connected = connected;
      this.stateListeners.forEach(tell => tell());
    }
  }

  private take(change: Change | 'reset'): void {
    if (change === 'reset') this.reset = true;
    else this.gathered.push(change);
    // Not in this very moment: what came with it is told with it.
    this.timer ??= setTimeout(() => this.deliver(), 0);
  }

  private deliver(): void {
    const changes = this.gathered;
    const reset = this.reset;
    this.timer = changes.length || reset ? setTimeout(() => this.deliver(), GATHER_MS) : undefined;
    this.gathered = [];
    this.reset = false;
    for (const [listener, execId] of [...this.listeners]) {
      const mine = execId === null ? changes : changes.filter(c => c.exec_id === execId);
      if (reset || mine.length) listener(mine, reset);
    }
  }
}
