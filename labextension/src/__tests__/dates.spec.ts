import { afterEach, expect, it, vi } from 'vitest';

import { formatDate, formatTime } from '../dates';

afterEach(() => vi.useRealTimers());

it('writes five past midnight as 00:05, with the date on another day', () => {
  vi.useFakeTimers({ now: new Date(2026, 10, 28, 15) });
  const seconds = (day: number) =>
    new Date(2026, 10, day, 0, 5).getTime() / 1000;
  expect(formatTime(seconds(28))).toBe('00:05');
  expect(formatTime(seconds(27))).toMatch(/27.*, 00:05$/);
});

it('writes a date with a time of 24 hours, and leaves what is no date', () => {
  expect(formatDate('2026-11-28T00:05:00')).toMatch(/2026.* 00:05$/);
  expect(formatDate('yesterday')).toBe('yesterday');
});
