// Watched prompts on a timeline: the completions of the base model and of the model in training at each step.

import { copyButton } from '../shared/clipboard.js';
import {
  drawIfChanged,
  h,
  placeChildren,
  setText,
  uniqueId
} from '../shared/dom.js';
import { runInPageCell } from '../shared/page_cell.js';
import { runRequests } from './requests.js';
import { stepSlider } from '../shared/step_slider.js';
import { formatCount, withUnit } from '../../src/numbers';

/** @import { Feed } from './feed.js' */

/** @typedef {{prompt: string, base: string | null, steps: number[], texts: string[], older: number}} Watched */

/**
 * Draws the watched prompts, a form that adds one, and for an ended run a form that compares base and tuned model.
 * @param {Feed} feed
 */
export function answersSection(feed) {
  const idPrefix = uniqueId('llf-answers');
  let selectedPrompt = ''; // the prompt that is shown
  let closed = false;

  const prompts = h('select', {
    id: `${idPrefix}-prompt`,
    onchange: () => {
      selectedPrompt = prompts.value;
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
      (slider.box.querySelector('input') ?? prompts).focus(); // the button disappears
    }
  });
  const baseName = h('dt', { class: 'llf-secondary' }, 'base');
  const baseText = h('dd');
  const stepName = h('b');
  const stepTerm = h('dt', {}, stepName);
  const stepText = h('dd');
  const rows = h('dl', { class: 'llf-Answers-rows' });
  const unchangedSince = h('p', { class: 'llf-secondary llf-small' });
  const announcement = h('span', { class: 'llf-sr', role: 'status' });
  const title = h('h3', {}, 'Watched prompts');
  const watchButton = h(
    'button',
    { type: 'button', class: 'llf-link', onclick: () => showWatchForm(true) },
    'Watch a prompt…'
  );
  const text = h('textarea', {
    id: `${idPrefix}-new`,
    rows: '2',
    maxlength: '4000'
  });
  const statusLine = h('span', {
    class: 'llf-secondary llf-small',
    role: 'status'
  });
  const watchForm = h(
    'div',
    { class: 'llf-Answers-new' },
    h(
      'label',
      { for: `${idPrefix}-new` },
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
      h(
        'button',
        { type: 'button', onclick: () => showWatchForm(false) },
        'Cancel'
      )
    )
  );
  watchForm.hidden = true;
  const promptInput = h('input', {
    type: 'text',
    id: `${idPrefix}-ask`,
    maxlength: '4000',
    onkeydown: (/** @type {any} */ event) => {
      if (event.key === 'Enter') {
        void compareModels();
      }
    }
  });
  const tryStatus = h('span', {
    class: 'llf-secondary llf-small',
    role: 'status'
  });
  const tryForm = h(
    'div',
    { class: 'llf-Answers-ask' },
    h('label', { for: `${idPrefix}-ask` }, 'Prompt'),
    promptInput,
    h(
      'button',
      { type: 'button', onclick: () => void compareModels() },
      'Compare base and tuned model'
    ),
    tryStatus
  );
  const watched = h('div', {}, slider.box, older, rows, unchangedSince);
  const section = h(
    'section',
    { class: 'llf-Answers', 'aria-label': 'Watched prompts' },
    h(
      'div',
      { class: 'llf-row' },
      title,
      h('label', { class: 'llf-sr', for: `${idPrefix}-prompt` }, 'Prompt'),
      prompts,
      watchButton,
      statusLine
    ),
    watchForm,
    watched,
    tryForm,
    announcement
  );

  function draw() {
    /** @type {Watched[]} */
    const all = feed.get('answers') ?? [];
    const live = feed.get('head')?.state === 'running';
    const ended = feed.get('head')?.actions?.includes('generate') === true;
    section.hidden = !all.length && !live && !ended;
    tryForm.hidden = !ended;
    setText(
      title,
      ended && !all.length ? 'Try the tuned model' : 'Watched prompts'
    );
    watchButton.hidden = !live;
    prompts.hidden = !all.length;
    watched.hidden = !all.length;
    if (!all.length) {
      return;
    }
    const index = Math.max(
      0,
      all.findIndex(prompt => prompt.prompt === selectedPrompt)
    );
    const names = all.map(
      (prompt, number) => `${number + 1} of ${all.length}: ${prompt.prompt}`
    );
    drawIfChanged(prompts, names, () =>
      all.map((prompt, number) =>
        h('option', { value: prompt.prompt }, names[number])
      )
    );
    const prompt = all[index];
    prompts.value = prompt.prompt;
    const count = prompt.steps.length;
    const slot = slider.show(prompt.steps, 'no completion yet');
    older.hidden = !prompt.older;
    setText(older, `Show ${withUnit(prompt.older, 'older completion')}`);
    setText(baseText, prompt.base || '(empty)');
    setText(stepName, count ? `step ${formatCount(prompt.steps[slot])}` : '');
    setText(stepText, (count && prompt.texts[slot]) || '(empty)');
    placeChildren(rows, [
      ...(prompt.base === null ? [] : [baseName, baseText]),
      ...(count ? [stepTerm, stepText] : [])
    ]);
    let firstSame = slot;
    while (
      firstSame > 0 &&
      prompt.texts[firstSame - 1] === prompt.texts[slot]
    ) {
      firstSame -= 1;
    }
    setText(
      unchangedSince,
      count && firstSame < slot
        ? `unchanged since step ${formatCount(prompt.steps[firstSame])}`
        : ''
    );
    setText(
      announcement,
      count ? `Step ${prompt.steps[slot]}: ${prompt.texts[slot]}` : ''
    );
  }

  /** Compares base and tuned model in a cell, because this needs a process with the model. */
  async function compareModels() {
    const prompt = promptInput.value.trim();
    if (!prompt) {
      setText(tryStatus, 'Enter a prompt first.');
      promptInput.focus();
      return;
    }
    const code = `llf.answers(${JSON.stringify(feed.run)}, [${JSON.stringify(prompt)}])`;
    if (feed.page?.runCell) {
      setText(tryStatus, 'Opening the completions in a cell…');
      const problem = await runInPageCell(code, feed.page);
      setText(tryStatus, problem || 'The completions are in a cell below.');
    } else {
      tryStatus.replaceChildren(
        'Run this in a cell: ',
        h('code', {}, code),
        ' ',
        copyButton(() => code, { name: 'Copy the code' })
      );
    }
  }

  function showWatchForm(/** @type {boolean} */ open) {
    watchForm.hidden = !open;
    setText(statusLine, '');
    (open ? text : watchButton).focus();
  }

  const showStatus = (/** @type {string} */ sentence) =>
    setText(statusLine, sentence);
  const requests = runRequests(feed, showStatus, () => undefined);

  async function watch() {
    const prompt = text.value.trim();
    if (!prompt) {
      setText(statusLine, 'Enter a prompt first.');
      text.focus();
      return;
    }
    const result = await requests.send('set', { watch: prompt });
    if (closed) {
      return;
    }
    if (!result.ok) {
      showStatus(result.text);
      return;
    }
    selectedPrompt = prompt;
    slider.follow();
    text.value = '';
    showWatchForm(false);
    showStatus('The first completion follows the current step.');
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
