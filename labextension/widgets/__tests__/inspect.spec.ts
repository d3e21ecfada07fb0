import { beforeEach, expect, it, vi } from 'vitest';

import { packedRowsSection } from '../inspect/packed_rows.js';
import { recordsSection } from '../inspect/records.js';
import { tokensSection } from '../inspect/tokens.js';
import type { PackedRows, ShownToken } from '../inspect/types';

const actions = {
  last: 0,
  example: vi.fn(),
  page: vi.fn(),
  search: vi.fn(),
  rows: vi.fn(),
  change: vi.fn()
};
beforeEach(() => {
  vi.clearAllMocks();
  Element.prototype.scrollIntoView = () => undefined;
});
const press = (node: Element, key: string) => {
  const event = new KeyboardEvent('keydown', { key, cancelable: true });
  node.dispatchEvent(event);
  return event;
};

it('tells where a token is in its packed row, which truncated tokens do not count in', () => {
  const turn = (role: string, ...tokens: ShownToken[]) => ({ role, tokens });
  const section = tokensSection(
    {
      dataset: 'demo', where: 'line 1', number: 0, held_out: false, row: 3, offset: 100, tokens: 4, prompt: 3, trained: 1, cut: 2,
      turns: [
        turn('user', ['a', 5, 'prompt', false], ['b', 6, 'cut', false], ['c', 7, 'cut', false]),
        turn('assistant', ['d', 8, 'trained', false])
      ]
    },
    actions
  ); // prettier-ignore
  const body = section.querySelector('.llf-Example-body')!;
  const said = () => section.querySelector('[role=status]')!.textContent;
  press(body, 'ArrowRight');
  expect(said()).toBe(
    '"a", id 5 · position 1 of 4, row 3 at 100 · user, not in the loss'
  );
  press(body, 'ArrowRight');
  expect(said()).toBe('"b", id 6 · position 2 of 4 · user, truncated');
  press(body, 'ArrowRight');
  press(body, 'ArrowRight');
  expect(said()).toBe(
    '"d", id 8 · position 4 of 4, row 3 at 101 · assistant, in the loss'
  );
});

it('opens an example of a packed row by Enter and by Space, as a button', () => {
  const rows: PackedRows = { total: 1, offset: 0, least: false, capacity: 8, rows: [{ row: 0, filled: 4, examples: [[7, 'line 8', 2, 2]] }] }; // prettier-ignore
  const overview = { packing_fill: 0.5, cutoff: 8 };
  const section = packedRowsSection(rows, overview, actions);
  const example = section.querySelector('[role=button]')!;
  press(example, 'Enter');
  expect(press(example, ' ').defaultPrevented).toBe(true);
  expect(actions.example.mock.calls).toEqual([[7], [7]]);
});

it('names the kinds of records in the table as in the list above it', () => {
  const records = recordsSection(actions);
  const row = { dataset: 'demo', where: 'line 1', number: 0, reason: '' };
  const rows = ['cut', 'doubled', 'leaked'].map(kind => ({ ...row, kind }));
  const kinds = { cut: 1, doubled: 1, leaked: 1 };
  records.draw(
    { kind: 'all', rows, offset: 0, query: '', total: 3, kinds },
    kinds,
    null
  );
  const cells = records.box.querySelectorAll('tbody td:first-child');
  expect(Array.from(cells, node => node.textContent)).toEqual([
    'truncated',
    'duplicated',
    'leaked'
  ]);
});
