import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { KernelTransport, type Model } from '../src/widget';

/** A kernel that hears what is sent and answers when told to. */
class Kernel implements Model {
  readonly heard: { id: string; path: string }[] = [];
  private readonly listeners: ((content: unknown, buffers: readonly DataView[]) => void)[] = [];

  get(): unknown {
    return '';
  }
  on(_: string, callback: (...args: never[]) => void): void {
    this.listeners.push(callback as never);
  }
  off(): void {}
  send(content: unknown): void {
    this.heard.push(content as never);
  }
  answer(id: string, body: unknown): void {
    for (const take of this.listeners) take({ kitaru: 'answer', id, status: 200, body }, []);
  }
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test('what a busy kernel did not hear is sent once more, under the same id', async () => {
  const kernel = new Kernel();
  const answer = new KernelTransport(kernel, 'v').json('POST', 'executions/kr-1/cancel', { body: '{}' });
  await vi.advanceTimersByTimeAsync(60_000);
  expect(kernel.heard.map(({ id }) => id)).toEqual(['v-1', 'v-1']);
  kernel.answer('v-1', { done: true });
  expect(await answer).toEqual({ done: true });
});

test('what was answered is not sent again', async () => {
  const kernel = new Kernel();
  const answer = new KernelTransport(kernel, 'v').json('GET', 'info');
  kernel.answer('v-1', {});
  await answer;
  await vi.advanceTimersByTimeAsync(60_000);
  expect(kernel.heard).toHaveLength(1);
});
