import type { JupyterFrontEnd } from '@jupyterlab/application';
import { Notification } from '@jupyterlab/apputils';
import type { NotebookPanel } from '@jupyterlab/notebook';
import { nullTranslator } from '@jupyterlab/translation';
import { CommandRegistry } from '@lumino/commands';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';

import { addCommands, RUN_MENU } from '../commands';
import type { RunState } from '../api';
import { BinActions } from '../bin_actions';
import {
  showFormDialog,
  FieldError,
  type IFormOptions,
  type FormValues
} from '../form_dialog';
import { RunsModel } from '../model';
import { runInCell, runInNewNotebook, showMonitor } from '../notebook';
import { FakeApi, run } from './runs';

vi.mock('../form_dialog', async original => ({
  ...(await original<object>()),
  showFormDialog: vi.fn()
}));
vi.mock('../notebook', () => ({
  IMPORT_LINE: 'import llf_widgets as llf',
  runInCell: vi.fn(),
  runInNewNotebook: vi.fn(),
  showMonitor: vi.fn()
}));

let api: FakeApi;
let model: RunsModel;
let commands: CommandRegistry;

beforeEach(async () => {
  api = new FakeApi();
  model = new RunsModel({ api, pageVersion: '0.1.0', isVisible: () => true });
  commands = new CommandRegistry();
  const app = { commands, shell: {} } as unknown as JupyterFrontEnd;
  const trans = nullTranslator.load('llf');
  addCommands(app, model, null, new BinActions(model, trans), trans);
  vi.mocked(runInCell).mockReset();
  vi.mocked(showMonitor).mockReset();
  vi.mocked(showFormDialog).mockReset();
});

afterEach(() => {
  Notification.dismiss();
  model.dispose();
});

async function selectRuns(...states: RunState[]): Promise<void> {
  api.allRuns = states.map((state, place) =>
    run('abcdefgh'[place], { state, name: `run ${place}` })
  );
  model.runs = api.allRuns;
  model.version = api.versionInfo;
  model.select(...api.allRuns.map(one => one.id));
}

/** Answers the next form with one set of values after the other until one is accepted; returns the errors. */
function answerForm(...all: FormValues[]): {
  form: IFormOptions | null;
  refused: string[];
} {
  const seen: { form: IFormOptions | null; refused: string[] } = {
    form: null,
    refused: []
  };
  vi.mocked(showFormDialog).mockImplementationOnce(async form => {
    seen.form = form;
    for (const values of all) {
      try {
        await form.submit(values);
        return true;
      } catch (error) {
        const { message } = error as Error;
        seen.refused.push(
          error instanceof FieldError ? `${error.field}: ${message}` : message
        );
      }
    }
    return false;
  });
  return seen;
}

function enabledCommands(): string[] {
  return RUN_MENU.filter(
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
      'chat',
      'evaluate-model',
      'export',
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
      'chat',
      'evaluate-model',
      'export',
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
    [
      'open-monitor',
      'chat',
      'evaluate-model',
      'export',
      'resume',
      'branch',
      'replay',
      ...ALWAYS,
      ...ONE,
      'delete'
    ]
  ],
  [['queued'], ['open-monitor', 'branch', 'replay', 'stop', ...ALWAYS, ...ONE]],
  [
    ['running', 'finished'],
    ['compare', 'chat', 'evaluate-model', 'stop', ...ALWAYS, 'tags']
  ],
  [
    ['finished', 'lost'],
    ['compare', 'chat', 'evaluate-model', ...ALWAYS, 'tags', 'delete']
  ]
])('enables for runs that are %j the commands %j', async (states, expected) => {
  await selectRuns(...states);
  expect(enabledCommands()).toEqual(expected);
});

it('does nothing if a disabled command is executed', async () => {
  await selectRuns();
  await commands.execute('llf:open-monitor');
  expect(runInCell).not.toHaveBeenCalled();
});

it('acts on the run whose details are shown, in the list or not', async () => {
  api.allRuns = [run('far', { state: 'finished' })];
  await model.openDetails('far');
  expect(model.selectedRuns.map(one => one.id)).toEqual(['far']);
  await commands.execute('llf:open-monitor');
  expect(vi.mocked(runInCell).mock.calls[0].slice(2)).toEqual([
    'llf.Monitor("far")',
    { 'text/plain': 'A summary of far.' } // shown without a kernel
  ]);
});

it('goes to the monitor of a run that the notebook has', async () => {
  await selectRuns('finished');
  vi.mocked(showMonitor).mockResolvedValue(true);
  await commands.execute('llf:open-monitor');
  expect(vi.mocked(showMonitor).mock.calls[0][2]).toBe('a');
  expect(runInCell).not.toHaveBeenCalled();
});

it('resumes a run in a cell without a monitor if the notebook has one, and goes back to it', async () => {
  await selectRuns('stopped');
  vi.mocked(showMonitor).mockResolvedValue(true);
  vi.mocked(runInCell).mockResolvedValue({ succeeded: Promise.resolve(true) });
  await commands.execute('llf:resume');
  expect(vi.mocked(runInCell).mock.calls.map(call => call[2])).toEqual([
    'run = llf.attach("a").resume()'
  ]);
  expect(showMonitor).toHaveBeenCalledTimes(2);
});

it('says that a run resumes from the click until its cell has ended, and once only', async () => {
  await selectRuns('stopped');
  let end = (_: boolean): void => undefined;
  vi.mocked(runInCell).mockResolvedValue({
    succeeded: new Promise(resolve => {
      end = resolve;
    })
  });
  const resumed = commands.execute('llf:resume');
  expect(model.isResuming(model.runs[0])).toBe(true); // before anything was awaited
  expect(model.statusMessage).toBe('Resuming “run 0”…');
  await commands.execute('llf:resume'); // a double click
  await vi.waitFor(() => expect(runInCell).toHaveBeenCalledOnce());
  expect(model.isResuming({ id: 'a', state: 'starting' })).toBe(false);
  end(false);
  await resumed;
  expect(runInCell).toHaveBeenCalledOnce();
  expect(model.isResuming(model.runs[0])).toBe(false);
  expect(model.statusMessage).toBe(
    'The cell that resumes the run failed. Its output says why.'
  );
  vi.mocked(runInCell).mockResolvedValue(false); // Notebook 7
  await commands.execute('llf:resume');
  expect(model.isResuming(model.runs[0])).toBe(false);
  expect(model.statusMessage).toContain('Run the cell in the notebook');
});

it('stops live runs and leaves the others', async () => {
  await selectRuns('running', 'finished', 'starting');
  await commands.execute('llf:stop');
  expect(api.requests.filter(route => route.startsWith('stop'))).toEqual([
    'stop a',
    'stop c'
  ]);
  expect(model.statusMessage).toBe('Stopping after the current step.');
});

it('runs actions that need a process in a cell', async () => {
  await selectRuns('failed');
  await commands.execute('llf:resume');
  expect(vi.mocked(runInCell).mock.calls[0][2]).toBe(
    'run = llf.attach("a").resume()\nllf.Monitor(run)'
  );
  await selectRuns('finished', 'finished');
  await commands.execute('llf:compare');
  expect(vi.mocked(runInCell).mock.calls[1][2]).toBe('llf.Compare(["a", "b"])');
  await commands.execute('llf:chat');
  expect(vi.mocked(runInCell).mock.calls[2][2]).toBe('llf.Chat("a", "b")');
  await commands.execute('llf:chat-result', { run: 'far' }); // of a run that is not in the list
  expect(vi.mocked(runInCell).mock.calls[3][2]).toBe(
    'llf.Chat("far@base", "far")'
  );
});

const CODE = {
  sha256: 'f00d',
  code: [
    {
      owner: 'the reward functions',
      folder: '/runs/a',
      sha256: 'f00d'.repeat(16),
      files: [
        {
          name: 'code/vowels.py',
          path: '/runs/a/code/vowels.py',
          lines: ['import os', '<img src=x>']
        }
      ],
      more: 2,
      references: []
    }
  ]
};

it('shows the code of a run from another machine, and starts it only if the user allows the code', async () => {
  await selectRuns('failed');
  api.foreignCode = CODE;
  for (const [command, call] of [
    ['llf:resume', 'resume(trust="f00d")'],
    ['llf:replay', 'replay(trust="f00d")']
  ]) {
    vi.mocked(runInCell).mockClear();
    const asked = commands.execute(command);
    const dialog = await shownDialog();
    expect(dialog.textContent).toContain('code/vowels.py');
    expect(dialog.querySelector('pre')?.textContent).toContain('<img src=x>');
    expect(dialog.querySelector('img')).toBeNull();
    expect(dialog.textContent).toContain('and 2 more files');
    press(dialog, '.jp-mod-reject');
    await asked;
    expect(runInCell).not.toHaveBeenCalled();
    const again = commands.execute(command);
    press(await shownDialog(), '.jp-mod-warn');
    await again;
    expect(vi.mocked(runInCell).mock.calls[0][2]).toBe(
      `run = llf.attach("a").${call}\nllf.Monitor(run)`
    );
  }
});

async function shownDialog(): Promise<HTMLElement> {
  return vi.waitFor(() => {
    const dialog = document.querySelector<HTMLElement>('.jp-Dialog');
    expect(dialog).not.toBeNull();
    return dialog as HTMLElement;
  });
}

function press(dialog: HTMLElement, button: string): void {
  dialog.querySelector<HTMLElement>(`.jp-Dialog-footer ${button}`)?.click();
}

it('opens the form in a new notebook in the folder of the launcher', async () => {
  const notebook = {} as NotebookPanel;
  vi.mocked(runInNewNotebook).mockResolvedValueOnce(notebook);
  expect(await commands.execute('llf:new-run', { cwd: 'work' })).toBe(notebook);
  expect(vi.mocked(runInNewNotebook).mock.calls[0].slice(1)).toEqual([
    'llf.Studio()',
    'work'
  ]);
  vi.mocked(runInNewNotebook).mockResolvedValueOnce(undefined);
  await commands.execute('llf:new-run');
  expect(model.statusMessage).toBe(
    'Run the cell in the notebook that opened in a new tab.'
  );
  vi.mocked(runInNewNotebook).mockRejectedValueOnce(new Error('No kernel.'));
  await commands.execute('llf:new-run');
  expect(model.statusMessage).toContain(
    'The cell did not run: No kernel. Choose a'
  );
});

it('moves runs to the bin, and restores all of them by Undo', async () => {
  await selectRuns('finished', 'failed');
  expect(commands.label('llf:delete')).toBe('Move 2 runs to the bin');
  expect(commands.label('llf:compare')).toBe('Compare 2 runs');
  await selectRuns('finished');
  expect(commands.label('llf:delete')).toBe('Move to the bin');
  expect(commands.label('llf:compare')).toBe('Compare runs');
  await selectRuns('finished', 'failed');
  await commands.execute('llf:delete');
  expect(api.deletedRuns.map(one => one.id)).toEqual(['a', 'b']);
  expect(model.statusMessage).toBe('2 runs moved to the bin.');
  await vi.waitFor(() => expect(model.binTotal).toBe(2));
  const notice = Notification.manager.notifications[0];
  expect(notice.message).toBe('2 runs moved to the bin.');
  expect(notice.options.actions!.map(one => one.label)).toEqual(['Undo']);

  notice.options.actions![0].callback(new MouseEvent('click'));
  await vi.waitFor(() => expect(model.statusMessage).toBe('2 runs restored.'));
  expect(api.allRuns.map(one => one.id)).toEqual(['a', 'b']);
  await vi.waitFor(() => expect(model.runs).toHaveLength(2));
  expect(Notification.manager.count).toBe(0);
  expect(commands.isEnabled('llf:undo-delete')).toBe(false);
});

it('restores the last deletion by a command, too', async () => {
  await selectRuns('finished', 'failed');
  await commands.execute('llf:delete');
  expect(commands.isEnabled('llf:undo-delete')).toBe(true);
  await commands.execute('llf:undo-delete');
  expect(api.allRuns.map(one => one.id)).toEqual(['a', 'b']);
});

it('offers Undo for the runs that were moved if the server refused others', async () => {
  await selectRuns('finished', 'failed', 'stopped');
  api.notMovable = ['b'];
  await commands.execute('llf:delete');
  expect(model.statusMessage).toBe(
    '2 runs moved to the bin. run 1: b is running.'
  );
  await commands.execute('llf:undo-delete');
  expect(api.requests.filter(one => one.startsWith('restore'))).toEqual([
    'restore a',
    'restore c'
  ]);
});

it('moves a run once if the key is pressed twice', async () => {
  await selectRuns('finished');
  const both = [commands.execute('llf:delete')];
  model.select('a');
  both.push(commands.execute('llf:delete'));
  await Promise.all(both);
  expect(api.requests.filter(one => one === 'remove a')).toHaveLength(1);
  expect(model.statusMessage).toBe('“run 0” moved to the bin.');
});

it('says why a live run is not moved to the bin', async () => {
  await selectRuns('finished', 'running');
  await commands.execute('llf:delete');
  expect(api.deletedRuns).toEqual([]);
  expect(model.statusMessage).toContain(
    '“run 1” is still running. Stop it before'
  );
});

it('branches from the selected checkpoint, in a cell', async () => {
  await selectRuns('finished');
  await commands.execute('llf:branch');
  expect(model.statusMessage).toBe('“run 0” has no checkpoint to branch from.');

  api.extraDetails = { checkpoints: [50, 100] };
  const dismissed = answerForm();
  await commands.execute('llf:branch');
  expect(runInCell).not.toHaveBeenCalled();
  expect(dismissed.form!.fields[0]).toMatchObject({
    options: ['100', '50'],
    value: '100'
  });

  const typed = { step: '50', learning_rate: '', max_steps: '' };
  const { form, refused } = answerForm(
    { ...typed, learning_rate: 'fast' },
    { ...typed, learning_rate: '0' },
    { ...typed, learning_rate: 'e5' },
    { ...typed, max_steps: '50' },
    { ...typed, max_steps: '1e9' },
    { ...typed, learning_rate: '1e-5', max_steps: '60' }
  );
  await commands.execute('llf:branch', { step: 50 });
  expect(form).toBeNull();
  expect(refused.map(one => one.split(/[.:] /).slice(0, 2))).toEqual([
    ['learning_rate', 'The peak learning rate is “fast”'],
    ['learning_rate', 'The peak learning rate is “0”'],
    ['learning_rate', 'The peak learning rate is “e5”'],
    ['max_steps', 'The last step is “50”'],
    ['max_steps', 'The last step is “1e9”']
  ]);
  expect(vi.mocked(showFormDialog).mock.calls[1][0].fields[0].value).toBe('50');
  expect(vi.mocked(runInCell).mock.calls[0][2]).toBe(
    'run = llf.attach("a").branch(50, learning_rate=1e-5, max_steps=60)\nllf.Monitor(run)'
  );
});

it('keeps the form open until the server accepts the name', async () => {
  await selectRuns('finished');
  api.concurrentEdits = [run('a', { name: 'theirs', state: 'finished' })];
  const { refused } = answerForm(
    { name: '' },
    { name: 'x'.repeat(201) },
    { name: 'mine' },
    { name: 'mine' }
  );
  await commands.execute('llf:rename');
  expect(refused).toEqual([
    'name: The name has 0 characters. Expected 1 to 200.',
    'name: The name has 201 characters. Expected 1 to 200.',
    'It was changed to “theirs” in another view. Save again to overwrite it.'
  ]);
  expect(model.statusMessage).toBe('Saved.');
});

it('adds tags to several runs and removes others', async () => {
  await selectRuns('finished', 'failed');
  api.allRuns = [
    run('a', { tags: ['old', 'kept'], state: 'finished' }),
    run('b', { tags: ['old'], state: 'failed' })
  ];
  model.runs = api.allRuns;
  api.concurrentEdits = [
    run('a', { tags: ['old', 'theirs'], state: 'finished' })
  ];
  const values = { 'remove 0': '', 'remove 1': 'on' };
  const { refused } = answerForm(
    { add: ' , ', 'remove 0': '', 'remove 1': '' },
    { add: 'x'.repeat(61), ...values },
    { add: 'best, faq, best', ...values }
  );
  await commands.execute('llf:tags');
  const { fields } = vi.mocked(showFormDialog).mock.calls[0][0];
  expect(fields.map(field => field.label)).toEqual([
    'Add tags, separated by commas',
    'Remove “kept” from 1 run',
    'Remove “old” from 2 runs'
  ]);
  expect(fields.map(field => field.checkbox ?? false)).toEqual([
    false,
    true,
    true
  ]);
  expect(refused).toEqual([
    'add: No tags to add or remove.',
    expect.stringContaining('has 61 characters. Expected at most 60.')
  ]);
  // A tag that another view added in the meantime is kept.
  expect(api.requests.filter(one => one.startsWith('change')).slice(1)).toEqual(
    [
      'change a {"revision":1,"tags":["theirs","best","faq"]}',
      'change b {"revision":1,"tags":["best","faq"]}'
    ]
  );
  expect(model.statusMessage).toBe('Changed the tags of 2 runs.');
});

it('offers nothing that needs a model of a run that ended without one', async () => {
  const needModel = ['llf:chat', 'llf:evaluate-model', 'llf:export'];
  const enabled = (): boolean[] =>
    needModel.map(command => commands.isEnabled(command));
  await selectRuns('failed');
  expect(enabled()).toEqual([true, true, true]);
  model.runs = [{ ...model.runs[0], weights: false }];
  expect(enabled()).toEqual([false, false, false]);
  for (const command of needModel) {
    model.setStatusMessage('');
    await commands.execute(command);
    expect(model.statusMessage).toBe(
      '“run 0” has neither a result nor a checkpoint.'
    );
  }
  expect(runInCell).not.toHaveBeenCalled();
  await selectRuns('running');
  model.runs = [{ ...model.runs[0], weights: false }]; // it may have one soon
  expect(enabled()).toEqual([true, true, true]);
});

it('evaluates runs in a cell', async () => {
  await selectRuns('finished');
  await commands.execute('llf:evaluate-model');
  expect(vi.mocked(runInCell).mock.calls[0][2]).toBe('llf.Evaluate("a")');
  await selectRuns('finished', 'running');
  await commands.execute('llf:evaluate-model');
  expect(vi.mocked(runInCell).mock.calls[1][2]).toBe('llf.Evaluate("a", "b")');
});

it('exports a run in a cell, in the format and folder of the dialog', async () => {
  await selectRuns('finished');
  answerForm();
  await commands.execute('llf:export');
  expect(runInCell).not.toHaveBeenCalled();

  const typed = { quantizations: '', folder: '', inside: '' };
  const { refused } = answerForm(
    { ...typed, format: 'merged', quantizations: 'Q8_0' },
    { ...typed, format: 'gguf', quantizations: 'Q8_0, "]' },
    { ...typed, format: 'adapter', folder: 'x', inside: 'on' },
    { ...typed, format: 'gguf', quantizations: 'f16 Q8_0,', inside: 'on' }
  );
  await commands.execute('llf:export');
  expect(refused.map(one => one.split(': ')[0])).toEqual([
    'quantizations',
    'quantizations',
    'folder'
  ]);
  expect(vi.mocked(runInCell).mock.calls[0][2]).toBe(
    'llf.export("a", format="gguf", quantizations=["f16", "Q8_0"], folder="~/.llf/runs/a/exports/gguf")'
  );
  answerForm({ ...typed, format: 'merged', folder: 'my "model' });
  await commands.execute('llf:export');
  expect(vi.mocked(runInCell).mock.calls[1][2]).toBe(
    'llf.export("a", format="merged", folder="my \\"model")'
  );
  answerForm({ ...typed, format: 'merged' });
  await commands.execute('llf:export');
  expect(vi.mocked(runInCell).mock.calls[2][2]).toBe(
    'llf.export("a", format="merged")'
  );
});

it('evaluates a live run by a request, an ended one in a cell', async () => {
  await selectRuns('running');
  await commands.execute('llf:evaluate');
  expect(api.requests).toContain('evaluate a');
  await selectRuns('finished');
  await commands.execute('llf:evaluate');
  expect(vi.mocked(runInCell).mock.calls[0][2]).toBe('llf.losses("a")');
});

it('follows, steers and fetches runs of another host, and changes nothing of them', async () => {
  await selectRuns('finished');
  api.host = 'box';
  await commands.execute('llf:open-monitor');
  await commands.execute('llf:fetch');
  expect(vi.mocked(runInCell).mock.calls.map(call => call[2])).toEqual([
    'llf.Monitor("ssh://box/a")',
    'llf.attach("ssh://box/a").fetch()'
  ]);
  expect(RUN_MENU.filter(id => id !== null && commands.isVisible(id))).toEqual([
    'llf:open-monitor',
    'llf:compare',
    'llf:fetch',
    'llf:resume',
    'llf:stop',
    'llf:checkpoint',
    'llf:kill',
    'llf:copy-ids',
    'llf:copy-code'
  ]);
  await commands.execute('llf:delete');
  expect(model.statusMessage).toBe('This works for runs of this machine only.');
  expect(api.allRuns).toHaveLength(1);
  api.host = '';
  expect(commands.isVisible('llf:fetch')).toBe(false);
  expect(commands.isVisible('llf:delete')).toBe(true);
});
