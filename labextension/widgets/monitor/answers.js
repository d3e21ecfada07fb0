// Watched prompts on a timeline: what the base answers, and what the model in training answers at each step.

import { copyButton, h, setText } from '../shared/dom.js';
import { requestServer } from '../shared/server.js';
import { stepSlider } from '../shared/step_slider.js';

/** @import { Feed } from './feed.js' */

/** @typedef {{prompt: string, base: string | null, steps: number[], texts: string[], older: number}} Watched */

let counted = 0; // views, for the ids that tie labels to controls

/** @param {Feed} feed */
export function answersSection(feed) {
  const own = `llf-answers-${++counted}`;
  let chosen = ''; // the prompt that is shown
  let closed = false;

  const prompts = h('select', {
    id: `${own}-prompt`,
    onchange: () => {
      chosen = prompts.value;
      slider.follow();
      draw();
    }
  });
  const slider = stepSlider('Step of the completion', draw);
  const older = h('button', {
    type: 'button',
    class: 'llf-link',
    onclick: () => {
      feed.setOptions({ older: prompts.selectedIndex + 1 });
      (slider.box.querySelector('input') ?? prompts).focus(); // the button goes
    }
  });
  const rows = h('dl', { class: 'llf-Answers-rows' });
  const since = h('p', { class: 'llf-2 llf-small' });
  const aloud = h('span', { class: 'llf-sr', role: 'status' });
  const title = h('h3', {}, 'Watched prompts');
  const add = h(
    'button',
    { type: 'button', class: 'llf-link', onclick: () => ask(true) },
    'Watch a prompt…'
  );
  const text = h('textarea', {
    id: `${own}-new`,
    rows: '2',
    maxlength: '4000'
  });
  const said = h('span', { class: 'llf-2 llf-small', role: 'status' });
  const form = h(
    'div',
    { class: 'llf-Answers-new' },
    h(
      'label',
      { for: `${own}-new` },
      'The model completes this prompt at every checkpoint and evaluation'
    ),
    text,
    h(
      'div',
      { class: 'llf-row' },
      h(
        'button',
        { type: 'button', class: 'llf-primary', onclick: watch },
        'Watch prompt'
      ),
      h('button', { type: 'button', onclick: () => ask(false) }, 'Cancel')
    )
  );
  form.hidden = true;
  const question = h('input', {
    type: 'text',
    id: `${own}-ask`,
    maxlength: '4000',
    onkeydown: (/** @type {any} */ event) => {
      if (event.key === 'Enter') {
        void askResult();
      }
    }
  });
  const answered = h('span', { class: 'llf-2 llf-small', role: 'status' });
  const result = h(
    'div',
    { class: 'llf-Answers-ask' },
    h('label', { for: `${own}-ask` }, 'Prompt'),
    question,
    h(
      'button',
      { type: 'button', onclick: () => void askResult() },
      'Compare base and tuned model'
    ),
    answered
  );
  const shown = h('div', {}, slider.box, older, rows, since);
  const section = h(
    'section',
    { class: 'llf-Answers', 'aria-label': 'Watched prompts' },
    h(
      'div',
      { class: 'llf-row' },
      title,
      h('label', { class: 'llf-sr', for: `${own}-prompt` }, 'Prompt'),
      prompts,
      add,
      said
    ),
    form,
    shown,
    result,
    aloud
  );

  function draw() {
    /** @type {Watched[]} */
    const all = feed.get('answers') ?? [];
    const live = feed.get('head')?.state === 'running';
    const ended = feed.get('head')?.actions?.includes('generate') === true;
    section.hidden = !all.length && !live && !ended;
    result.hidden = !ended;
    setText(
      title,
      ended && !all.length ? 'Try the tuned model' : 'Watched prompts'
    );
    add.hidden = !live;
    prompts.hidden = !all.length;
    shown.hidden = !all.length;
    if (!all.length) {
      return;
    }
    const at = Math.max(
      0,
      all.findIndex(one => one.prompt === chosen)
    );
    const names = all.map(
      (one, number) => `${number + 1} of ${all.length}: ${one.prompt}`
    );
    if (JSON.stringify(names) !== prompts.dataset.names) {
      prompts.dataset.names = JSON.stringify(names);
      prompts.replaceChildren(
        ...all.map((one, number) =>
          h('option', { value: one.prompt }, names[number])
        )
      );
    }
    const one = all[at];
    prompts.value = one.prompt;
    const count = one.steps.length;
    const now = slider.show(one.steps, 'no completion yet');
    older.hidden = !one.older;
    setText(
      older,
      `Show ${one.older.toLocaleString('en')} older completion${one.older === 1 ? '' : 's'}`
    );
    const lines = [];
    if (one.base !== null) {
      lines.push(
        h('dt', { class: 'llf-2' }, 'base'),
        h('dd', {}, one.base || '(empty)')
      );
    }
    if (count) {
      lines.push(
        h('dt', {}, h('b', {}, `step ${one.steps[now].toLocaleString('en')}`)),
        h('dd', {}, one.texts[now] || '(empty)')
      );
    }
    rows.replaceChildren(...lines);
    let same = now;
    while (same > 0 && one.texts[same - 1] === one.texts[now]) {
      same -= 1;
    }
    setText(
      since,
      count && same < now
        ? `unchanged since step ${one.steps[same].toLocaleString('en')}`
        : ''
    );
    setText(aloud, count ? `Step ${one.steps[now]}: ${one.texts[now]}` : '');
  }

  /** The answers need a process with the model, so they come in a cell. */
  async function askResult() {
    const prompt = question.value.trim();
    if (!prompt) {
      setText(answered, 'Enter a prompt first.');
      question.focus();
      return;
    }
    const code = `llf.answers(${JSON.stringify(feed.run)}, [${JSON.stringify(prompt)}])`;
    if (feed.host?.runCell) {
      setText(answered, 'The completions are in a cell below.');
      await feed.host.runCell(code);
    } else {
      answered.replaceChildren(
        'Run this in a cell: ',
        h('code', {}, code),
        ' ',
        copyButton(code)
      );
    }
  }

  function ask(/** @type {boolean} */ open) {
    form.hidden = !open;
    setText(said, '');
    (open ? text : add).focus();
  }

  /** Requests go to the server, which answers while the kernel is busy, or else to the kernel. */
  async function watch() {
    const prompt = text.value.trim();
    if (!prompt) {
      setText(said, 'Enter a prompt first.');
      text.focus();
      return;
    }
    setText(said, 'Sending the request to the Jupyter server…');
    const args = { watch: prompt };
    const { status, answer } = await requestServer(
      `runs/${encodeURIComponent(feed.run)}/control`,
      { type: 'set', args, by: 'monitor' }
    );
    if (closed) {
      return;
    }
    if (status === 202) {
      return done(true, '');
    }
    if (status === 400 || status === 409) {
      return done(false, answer.message ?? 'The request was refused.');
    }
    if (!feed.hasKernel) {
      return done(
        false,
        `The Jupyter server does not answer (${answer.message ?? status}). Try again.`
      );
    }
    setText(said, 'Sending the request to the kernel…');
    const { ok, text: why } = await feed.requestKernel('set', args, () =>
      setText(
        said,
        'The request waits in the kernel until the running cell ends.'
      )
    );
    done(ok, why);
  }

  function done(/** @type {boolean} */ ok, /** @type {string} */ why) {
    if (!ok) {
      setText(said, why);
      return;
    }
    chosen = text.value.trim();
    slider.follow();
    text.value = '';
    ask(false);
    setText(said, 'The first completion follows the current step.');
  }

  feed.on('answers', draw);
  feed.on('head', draw);
  draw();
  return {
    box: section,
    close: () => {
      closed = true;
    }
  };
}
