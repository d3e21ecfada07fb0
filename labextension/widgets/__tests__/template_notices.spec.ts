// @vitest-environment jsdom
import { expect, test, vi } from 'vitest';
import { templateNotices } from '../inspect/template_notices.js';

test('a field that is never rendered has a button that renames it and keeps earlier renames', () => {
  const change = vi.fn();
  const notices = templateNotices(
    {
      template_warnings: ['It never renders `thought`.'],
      template_notes: ['It never renders `id`.'],
      renames: { thought: 'reasoning_content' },
      rename_fields: { a: 'b' }
    },
    change
  );
  expect(notices.map(one => one.textContent)).toEqual([
    'It never renders thought.',
    'Rename thought to reasoning_content',
    'It never renders id.'
  ]);
  notices[1].querySelector('button')?.click();
  expect(change).toHaveBeenCalledWith({
    rename_fields: { a: 'b', thought: 'reasoning_content' }
  });
});

test('a template that renders everything has no notice', () => {
  expect(
    templateNotices(
      {
        template_warnings: [],
        template_notes: [],
        renames: {},
        rename_fields: {}
      },
      vi.fn()
    )
  ).toEqual([]);
});
