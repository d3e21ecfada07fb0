import { beforeEach, expect, it, vi } from 'vitest';

import { configEditor } from '../forms/config_editor.js';
import { Field } from '../forms/field.js';
import { drawUnreadableFile } from '../forms/messages.js';

const traits: Record<string, unknown> = { _view: 'yaml', _messages: [] };
const model = {
  get: (name: string) => traits[name] ?? '',
  on: () => undefined,
  off: () => undefined,
  send: vi.fn()
};
const row = {
  key: 'dataset', label: 'Data', unit: '', help: '', tooltip: '', kind: 'text', text: '', placeholder: '', choices: [],
  explained: false, suggestions: [], completes: false, group: '', wide: false, long: true, upload: true,
  changed: false, messages: []
}; // prettier-ignore
const SAID =
  'Errorgone.jsonl cannot be read. Choose it again, or another file.';

/** Chooses a file that was removed from the disk meanwhile. */
function chooseGone(box: HTMLElement): void {
  const gone = () => Promise.reject(new DOMException('', 'NotFoundError'));
  const file = { name: 'gone.jsonl', size: 5, text: gone, slice: () => ({ arrayBuffer: gone }) }; // prettier-ignore
  const input = box.querySelector('input[type=file]')!;
  Object.defineProperty(input, 'files', { value: [file] });
  input.dispatchEvent(new Event('change'));
}

beforeEach(() => document.body.replaceChildren());

it('are named beside the field, whose button can be used again', async () => {
  const none = () => undefined;
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  const field = new Field(row as any, none, none, model as any, none);
  document.body.append(field.node, field.messages);
  chooseGone(field.node);
  await vi.waitFor(() => expect(field.messages.textContent).toBe(SAID));
  const [button] = field.node.querySelectorAll('button');
  expect(button.textContent).toBe('Upload…');
  expect(button.getAttribute('aria-disabled')).toBe('false');
});

it('are named below the configuration', async () => {
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  configEditor({ model: model as any, el: document.body });
  chooseGone(document.body);
  await vi.waitFor(() =>
    expect(document.querySelector('.llf-Message')?.textContent).toBe(SAID)
  );
});

it('are not blamed for an error that has another cause', () => {
  const error = new TypeError('The comm is closed.');
  expect(() => drawUnreadableFile(document.body, 'a', error)).toThrow(error);
  expect(document.body.textContent).toBe('');
});
