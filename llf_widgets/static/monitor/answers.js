// Watched prompts on a timeline: what the base answers, and what the model in training answers at each step.

/** @typedef {{prompt: string, base: string | null, steps: number[], texts: string[], older: number}} Watched */

let counted = 0; // views, for the ids that tie labels to controls

/** @param {ReturnType<typeof runFeed>} feed */
function answersPart(feed) {
  const own = `llf-answers-${++counted}`;
  let chosen = ''; // the prompt that is shown
  let closed = false;

  const prompts = h('select', { id: `${own}-prompt`, onchange: () => { chosen = prompts.value; slider.follow(); draw(); } });
  const slider = stepSlider('Step of the answer', draw);
  const older = h('button', { type: 'button', class: 'llf-link', onclick: () => {
    feed.setOptions({ older: prompts.selectedIndex + 1 });
    (slider.box.querySelector('input') ?? prompts).focus(); // the button goes
  } });
  const rows = h('dl', { class: 'llf-Answers-rows' });
  const since = h('p', { class: 'llf-2 llf-small' });
  const aloud = h('span', { class: 'llf-sr', role: 'status' });
  const title = h('h3', {}, 'Watch it answer');
  const add = h('button', { type: 'button', class: 'llf-link', onclick: () => ask(true) }, 'Add a prompt…');
  const text = h('textarea', { id: `${own}-new`, rows: '2', maxlength: '4000' });
  const said = h('span', { class: 'llf-2 llf-small', role: 'status' });
  const form = h('div', { class: 'llf-Answers-new' },
    h('label', { for: `${own}-new` }, 'Prompt to be answered at every checkpoint and evaluation from here on'), text,
    h('div', { class: 'llf-row' },
      h('button', { type: 'button', class: 'llf-primary', onclick: watch }, 'Watch it'),
      h('button', { type: 'button', onclick: () => ask(false) }, 'Leave it')));
  form.hidden = true;
  const question = h('input', { type: 'text', id: `${own}-ask`, maxlength: '4000', onkeydown: (/** @type {any} */ event) => { if (event.key === 'Enter') void askResult(); } });
  const answered = h('span', { class: 'llf-2 llf-small', role: 'status' });
  const result = h('div', { class: 'llf-Answers-ask' },
    h('label', { for: `${own}-ask` }, 'Ask it'), question,
    h('button', { type: 'button', onclick: () => void askResult() }, 'Ask base and result'), answered);
  const shown = h('div', {}, slider.box, older, rows, since);
  const section = h('section', { class: 'llf-Answers', 'aria-label': 'Watch it answer' },
    h('div', { class: 'llf-row' }, title,
      h('label', { class: 'llf-sr', for: `${own}-prompt` }, 'Prompt'), prompts, add, said),
    form, shown, result, aloud);

  function draw() {
    /** @type {Watched[]} */
    const all = feed.get('answers') ?? [];
    const live = feed.get('head')?.state === 'running';
    const ended = feed.get('head')?.offers?.includes('ask') === true;
    section.hidden = !all.length && !live && !ended;
    result.hidden = !ended;
    say(title, ended && !all.length ? 'Try the result' : 'Watch it answer');
    add.hidden = !live;
    prompts.hidden = !all.length;
    shown.hidden = !all.length;
    if (!all.length) return;
    const at = Math.max(0, all.findIndex(one => one.prompt === chosen));
    const names = all.map((one, number) => `${number + 1} of ${all.length}: ${one.prompt}`);
    if (JSON.stringify(names) !== prompts.dataset.names) {
      prompts.dataset.names = JSON.stringify(names);
      prompts.replaceChildren(...all.map((one, number) => h('option', { value: one.prompt }, names[number])));
    }
    const one = all[at];
    prompts.value = one.prompt;
    const count = one.steps.length;
    const now = slider.show(one.steps, 'no answer yet');
    older.hidden = !one.older;
    say(older, `Show ${one.older.toLocaleString('en')} older answer${one.older === 1 ? '' : 's'}`);
    const lines = [];
    if (one.base !== null) lines.push(h('dt', { class: 'llf-2' }, 'base'), h('dd', {}, one.base || '(nothing)'));
    if (count) lines.push(h('dt', {}, h('b', {}, `step ${one.steps[now].toLocaleString('en')}`)), h('dd', {}, one.texts[now] || '(nothing)'));
    rows.replaceChildren(...lines);
    let same = now;
    while (same > 0 && one.texts[same - 1] === one.texts[now]) same -= 1;
    say(since, count && same < now ? `the same answer since step ${one.steps[same].toLocaleString('en')}` : '');
    say(aloud, count ? `Step ${one.steps[now]}: ${one.texts[now]}` : '');
  }

  /** The answers need a process with the model, so they come in a cell. */
  async function askResult() {
    const prompt = question.value.trim();
    if (!prompt) { say(answered, 'Write a prompt first.'); question.focus(); return; }
    const code = `llf.answers(${JSON.stringify(feed.run)}, [${JSON.stringify(prompt)}])`;
    if (feed.host?.runCell) {
      say(answered, 'The answers are in a cell below.');
      await feed.host.runCell(code);
    } else {
      answered.replaceChildren('In a cell: ', h('code', {}, code), ' ', copyButton(code));
    }
  }

  function ask(/** @type {boolean} */ open) {
    form.hidden = !open;
    say(said, '');
    (open ? text : add).focus();
  }

  /** The server answers while the kernel is busy; where it can't, the kernel is asked. */
  async function watch() {
    const prompt = text.value.trim();
    if (!prompt) { say(said, 'Write a prompt first.'); text.focus(); return; }
    say(said, 'Asking the Jupyter server…');
    const args = { watch: prompt };
    const { status, answer } = await askServer(`runs/${encodeURIComponent(feed.run)}/control`, { type: 'set', args, by: 'monitor' });
    if (closed) return;
    if (status === 202) return done(true, '');
    if (status === 400 || status === 409) return done(false, answer.message ?? 'It was refused.');
    if (!feed.hasKernel) return done(false, `The Jupyter server does not answer (${answer.message ?? status}). Try again.`);
    say(said, 'Asking the kernel…');
    const { ok, text: why } = await feed.askKernel('set', args, () => say(said, 'It waits in the kernel until the running cell ends.'));
    done(ok, why);
  }

  function done(/** @type {boolean} */ ok, /** @type {string} */ why) {
    if (!ok) { say(said, why); return; }
    chosen = text.value.trim();
    slider.follow();
    text.value = '';
    ask(false);
    say(said, 'It is answered after the current step.');
  }

  feed.on('answers', draw);
  feed.on('head', draw);
  draw();
  return { box: section, close: () => { closed = true; } };
}
