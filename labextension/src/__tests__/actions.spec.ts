import type { JupyterFrontEnd } from '@jupyterlab/application';
import { nullTranslator } from '@jupyterlab/translation';
import { CommandRegistry } from '@lumino/commands';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';

import { addCommands, MENU } from '../actions';
import type { RunState } from '../api';
import { askFields } from '../ask';
import { RunsModel } from '../model';
import { runInCell } from '../notebook';
import { FakeApi, run } from './runs';

vi.mock('../ask', () => ({ askFields: vi.fn(), askText: vi.fn() }));
vi.mock('../notebook', () => ({
  IMPORT: 'import llf_widgets as llf',
  runInCell: vi.fn()
}));

let api: FakeApi;
let model: RunsModel;
let commands: CommandRegistry;

beforeEach(async () => {
  api = new FakeApi();
  model = new RunsModel({ api, pageVersion: '0.1.0', isVisible: () => true });
  commands = new CommandRegistry();
  const app = { commands, shell: {} } as unknown as JupyterFrontEnd;
  addCommands(app, model, null, nullTranslator.load('llf'));
  vi.mocked(runInCell).mockReset();
});

afterEach(() => model.dispose());

async function choose(...states: RunState[]): Promise<void> {
  api.all = states.map((state, place) =>
    run('abcdefgh'[place], { state, name: `run ${place}` })
  );
  model.runs = api.all;
  model.version = api.answer;
  model.select(...api.all.map(one => one.id));
}

function can(): string[] {
  return MENU.filter(
    (command): command is string =>
      command !== null && commands.isEnabled(command)
  ).map(command => command.replace('llf:', ''));
}

const ALWAYS = ['copy-ids', 'copy-paths', 'copy-code'];
const ONE = ['rename', 'tags', 'note'];

it.each<[RunState[], string[]]>([
  [[], []],
  [
    ['running'],
    [
      'open-monitor',
      'branch',
      'replay',
      'evaluate',
      'stop',
      'checkpoint',
      'kill',
      ...ALWAYS,
      ...ONE
    ]
  ],
  [
    ['finished'],
    [
      'open-monitor',
      'branch',
      'replay',
      'evaluate',
      ...ALWAYS,
      ...ONE,
      'delete'
    ]
  ],
  [
    ['failed'],
    ['open-monitor', 'resume', 'branch', 'replay', ...ALWAYS, ...ONE, 'delete']
  ],
  [
    ['created'],
    ['open-monitor', 'branch', 'replay', 'stop', ...ALWAYS, ...ONE]
  ],
  [
    ['running', 'finished'],
    ['compare', 'stop', ...ALWAYS]
  ],
  [
    ['finished', 'lost'],
    ['compare', ...ALWAYS, 'delete']
  ]
])('of %j one can do %j', async (states, expected) => {
  await choose(...states);
  expect(can()).toEqual(expected);
});

it('does nothing where it does not fit, though a button asks for it', async () => {
  await choose();
  await commands.execute('llf:open-monitor');
  expect(runInCell).not.toHaveBeenCalled();
});

it('is for the run whose details are shown, listed or not', async () => {
  api.all = [run('far', { state: 'finished' })];
  await model.open('far');
  expect(model.selected.map(one => one.id)).toEqual(['far']);
  await commands.execute('llf:open-monitor');
  expect(vi.mocked(runInCell).mock.calls[0][2]).toBe('llf.Monitor("far")');
});

it('stops those that go and leaves the others', async () => {
  await choose('running', 'finished', 'starting');
  await commands.execute('llf:stop');
  expect(api.asked.filter(route => route.startsWith('stop'))).toEqual([
    'stop a',
    'stop c'
  ]);
  expect(model.said).toContain('waits for the step under way');
});

it('writes what needs a process into a cell', async () => {
  await choose('failed');
  await commands.execute('llf:resume');
  expect(vi.mocked(runInCell).mock.calls[0].slice(2)).toEqual([
    'run = llf.attach("a").resume()\nllf.Monitor(run)',
    false
  ]);
  await choose('finished', 'finished');
  await commands.execute('llf:compare');
  expect(vi.mocked(runInCell).mock.calls[1][2]).toBe('llf.Compare(["a", "b"])');
  await commands.execute('llf:new-run');
  expect(vi.mocked(runInCell).mock.calls[2].slice(2)).toEqual([
    'llf.Studio()',
    true
  ]);
});

it('moves runs to the bin, and the last one back', async () => {
  await choose('finished', 'failed');
  expect(commands.label('llf:delete')).toBe('Move 2 runs to the bin');
  await commands.execute('llf:delete');
  expect(api.asked.filter(route => route.startsWith('remove'))).toEqual([
    'remove a',
    'remove b'
  ]);
  expect(model.said).toBe('2 runs are in the bin; the last one is run 1.');
  expect(commands.isEnabled('llf:undo-delete')).toBe(true);
  await commands.execute('llf:undo-delete');
  expect(api.asked).toContain('restore b');
  expect(model.removed).toBeNull();
});

it('branches from a checkpoint that is chosen, in a cell', async () => {
  await choose('finished');
  await commands.execute('llf:branch');
  expect(model.said).toBe('run 0 has no checkpoint to branch from.');

  api.more = { checkpoints: [50, 100] };
  vi.mocked(askFields).mockResolvedValueOnce(null);
  await commands.execute('llf:branch');
  expect(runInCell).not.toHaveBeenCalled();
  const [, , , fields] = vi.mocked(askFields).mock.calls[0];
  expect(fields[0].options).toEqual(['100', '50']);

  const typed = { step: '50', learning_rate: 'fast', max_steps: '' };
  vi.mocked(askFields).mockResolvedValueOnce(typed);
  await commands.execute('llf:branch');
  expect(model.said).toContain('Expected numbers');

  const well = { ...typed, learning_rate: '1e-5' };
  vi.mocked(askFields).mockResolvedValueOnce(well);
  await commands.execute('llf:branch');
  expect(vi.mocked(runInCell).mock.calls[0][2]).toBe(
    'run = llf.attach("a").branch(50, learning_rate=0.00001)\nllf.Monitor(run)'
  );
});

it('evaluates a live run where it goes, an ended one in a cell', async () => {
  await choose('running');
  await commands.execute('llf:evaluate');
  expect(api.asked).toContain('evaluate a');
  await choose('finished');
  await commands.execute('llf:evaluate');
  expect(vi.mocked(runInCell).mock.calls[0][2]).toBe('llf.losses("a")');
});
