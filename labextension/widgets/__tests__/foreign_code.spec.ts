import { afterEach, beforeEach, expect, it, vi } from 'vitest';

import { codeNotice } from '../shared/foreign_code.js';

const CODE = [
  {
    owner: 'the model m',
    folder: '/m',
    sha256: 'a'.repeat(64),
    files: [{ name: 'evil.py', path: '/m/evil.py', lines: ['import os'] }],
    more: 0,
    references: []
  }
];
const onAllow = vi.fn();
let notice: ReturnType<typeof codeNotice>;
let other: HTMLButtonElement;
const allow = (): HTMLButtonElement => notice.box.querySelector('button')!;
const isDisabled = (): boolean =>
  allow().getAttribute('aria-disabled') === 'true';

beforeEach(() => {
  vi.useFakeTimers();
  onAllow.mockClear();
  other = document.createElement('button');
  notice = codeNotice({
    purpose: 'It is needed.',
    label: 'Allow',
    progress: 'Reading the data…',
    onAllow,
    fallback: () => other
  });
  document.body.replaceChildren(notice.box, other);
  notice.show(CODE);
});
afterEach(() => {
  notice.close();
  vi.useRealTimers();
});

it('shows at once that a click was received, and takes another one if nothing follows', () => {
  allow().click();
  expect(isDisabled()).toBe(true);
  expect(notice.box.textContent).toContain('Reading the data…');
  allow().click();
  expect(onAllow).toHaveBeenCalledTimes(1);
  vi.advanceTimersByTime(5000);
  expect(isDisabled()).toBe(false);
  expect(notice.box.textContent).toContain('The kernel has not answered yet.');
  allow().click();
  expect(onAllow).toHaveBeenCalledTimes(2);
});

it('stays in place while the code is the same', () => {
  const [before, details] = [allow(), notice.box.querySelector('details')!];
  details.open = false;
  notice.show(structuredClone(CODE));
  expect(allow()).toBe(before);
  expect(notice.box.querySelector('details')).toBe(details);
  expect(details.open).toBe(false);
});

it('hands the focus on when it disappears, and is new when it is shown again', () => {
  allow().focus();
  allow().click();
  notice.show([]);
  expect(notice.box.childNodes.length).toBe(0);
  expect(document.activeElement).toBe(other);
  notice.show(CODE); // the kernel asks again
  expect(isDisabled()).toBe(false);
});
