import { expect, it } from 'vitest';

import { droppedLines } from '../monitor/events.js';

it('finds the lines of a log that its new end no longer has', () => {
  const before = ['a', 'b', 'b', 'c'];
  expect(droppedLines(before, [...before, 'd'])).toBe(0);
  expect(droppedLines(before, ['b', 'b', 'c', 'd'])).toBe(1);
  expect(droppedLines(before, ['b', 'c', 'd'])).toBe(2);
  expect(droppedLines(before, ['x'])).toBe(4); // another attempt
  expect(droppedLines([], before)).toBe(0);
});
