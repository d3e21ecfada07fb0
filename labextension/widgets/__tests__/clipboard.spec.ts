import { afterEach, beforeEach, expect, it, vi } from 'vitest';

import { copyButton } from '../shared/clipboard.js';

const execCommand = vi.fn<(command: string) => boolean>();
let button: HTMLButtonElement;
beforeEach(() => {
  vi.useFakeTimers();
  execCommand.mockReset();
  Object.assign(document, { execCommand });
  button = copyButton(() => 'the text', { name: 'Copy the path' });
  document.body.replaceChildren(button);
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const press = async (): Promise<void> => {
  button.focus();
  button.click();
  await vi.advanceTimersByTimeAsync(10);
};
const clipboard = (writeText: (text: string) => Promise<void>) =>
  vi.stubGlobal('navigator', { clipboard: { writeText } });

it('copies, says so for a moment, and is then as before', async () => {
  const write = vi.fn(async () => undefined);
  clipboard(write);
  await press();
  expect(write).toHaveBeenCalledWith('the text');
  expect([button.textContent, button.ariaLabel]).toEqual(['Copied', 'Copied']);
  await vi.advanceTimersByTimeAsync(2000);
  expect([button.textContent, button.ariaLabel]).toEqual([
    'Copy',
    'Copy the path'
  ]);
});

it('copies by a selection where the browser forbids the clipboard, and keeps the focus', async () => {
  clipboard(() => Promise.reject(new Error('denied')));
  execCommand.mockImplementation(
    () => (document.activeElement as HTMLTextAreaElement).value === 'the text'
  );
  await press();
  expect(button.textContent).toBe('Copied');
  expect(document.activeElement).toBe(button);
  expect(document.querySelector('textarea')).toBeNull();
});

it('does not say that it has copied what it has not', async () => {
  vi.stubGlobal('navigator', {});
  execCommand.mockReturnValue(false);
  await press();
  expect(button.textContent).toBe('Not copied');
});
