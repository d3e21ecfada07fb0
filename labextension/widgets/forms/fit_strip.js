import { createButton, setDisabled } from '../shared/buttons.js';
import { drawIfChanged, h, keepFocus, setText } from '../shared/dom.js';
import { onKernelLost } from '../shared/kernel.js';
import { formatBytes, formatDuration, withUnit } from '../../src/numbers';

/** @import { Context } from '../shared/model' */

/**
 * @typedef {{ device: string, kind: string, free: number, usable: number, total: number, needed: number,
 *   fits: boolean }} Room
 * @typedef {{ step_seconds: number, tokens_per_second: number, steps: number | null, seconds: number | null,
 *   low: number | null, high: number | null, basis: string }} Duration
 * @typedef {{ label: string, cost: string, memory: number }} Change
 * @typedef {{ fits: boolean | null, memory: Record<string, number> | null, devices: Room[],
 *   disk: { needed: number | null, free: number }, time: Duration | null, gradient_checkpointing: boolean,
 *   basis: string[], changes: Change[], processes: number }} Fit
 */

const PARTS = [
  'weights',
  'adapters',
  'gradients',
  'optimizer',
  'activations',
  'logits',
  'communication',
  'workspace'
];

/**
 * Draws the forecast of the run: memory by part against what is free, disk and time, and what would make it fit.
 * @param {Context} context
 */
export function fitStrip({ model, el }) {
  let alive = true;
  const verdict = h('p', { class: 'llf-Fit-verdict', role: 'status' });
  const bar = h('div', { class: 'llf-Fit-bar', role: 'img' });
  const key = h('ul', { class: 'llf-Fit-key' });
  const facts = h('div', { class: 'llf-Fit-facts' });
  const basis = h('ul', { class: 'llf-small llf-secondary' });
  const changes = h('div', { class: 'llf-Fit-changes' });
  const undo = createButton('Undo', () => model.send({ type: 'undo' }));
  const measure = createButton('Measure', () =>
    model.send({ type: 'measure' })
  );
  measure.title =
    'Makes a few real steps in a process of its own, and corrects memory and time.';
  const cancel = createButton('Cancel', () => model.send({ type: 'cancel' }));
  const note = h('span', { class: 'llf-secondary', role: 'status' });
  const actions = h('div', { class: 'llf-row' }, measure, cancel, undo, note);
  el.replaceChildren(
    h(
      'section',
      { class: 'llf-Fit', 'aria-label': 'Forecast' },
      h('h3', {}, 'Forecast'),
      verdict,
      bar,
      key,
      facts,
      changes,
      actions,
      h(
        'details',
        {},
        h('summary', { class: 'llf-secondary' }, 'How it was computed'),
        basis
      )
    )
  );

  const draw = () => {
    /** @type {Fit | Record<string, never>} */
    const fit = model.get('_fit');
    const message = model.get('_message');
    const measuring = alive && model.get('_measuring');
    setText(undo, model.get('_undo') || 'Undo');
    setDisabled(measure, !model.get('_ready'));
    keepFocus(
      actions,
      () => {
        undo.hidden = !model.get('_undo');
        measure.hidden = measuring;
        cancel.hidden = !measuring;
      },
      () => (measuring ? cancel : measure)
    );
    setText(note, alive ? model.get('_note') : '');
    const known = !message && 'memory' in fit;
    for (const node of [bar, key, facts, changes]) {
      node.hidden = !known;
    }
    if (!known) {
      setText(verdict, message);
      verdict.classList.toggle('is-over', false);
      drawTexts(basis, [], line => h('li', {}, line));
      return;
    }
    drawFit(/** @type {Fit} */ (fit));
  };

  const drawFit = (/** @type {Fit} */ fit) => {
    const room = fit.devices[0];
    bar.hidden = key.hidden = fit.memory === null;
    setText(verdict, sentence(fit, room));
    verdict.classList.toggle('is-over', fit.fits === false);
    if (fit.memory !== null) {
      drawBar(bar, fit.memory, room);
      drawKey(key, fit.memory);
    }
    drawTexts(facts, factLines(fit), line => h('p', {}, line));
    drawTexts(basis, fit.basis, line => h('li', {}, line));
    const labels = fit.changes.map(
      one => `${one.label}\n${formatBytes(one.memory)}: ${one.cost}`
    );
    drawTexts(
      changes,
      labels,
      (line, index) => {
        const [label, cost] = line.split('\n');
        return h(
          'p',
          {},
          createButton(label, () => model.send({ type: 'apply', index })),
          h('span', { class: 'llf-small llf-secondary' }, ` ${cost}`)
        );
      },
      () => (undo.hidden ? measure : undo)
    );
  };
  model.on('change', draw);
  draw();
  const endWait = onKernelLost(model, () => {
    alive = false;
    draw();
  });
  return () => {
    endWait();
    model.off('change', draw);
  };
}

/**
 * Draws a list of texts again only if they differ, so that its buttons stay.
 * @param {HTMLElement} node
 * @param {string[]} texts
 * @param {(text: string, index: number) => HTMLElement} make
 * @param {() => HTMLElement} [fallback] gets the focus if its button is gone
 */
function drawTexts(node, texts, make, fallback) {
  drawIfChanged(node, texts, () => texts.map(make), fallback);
}

/** @param {Fit} fit @param {Room} room */
function sentence(fit, room) {
  if (fit.memory === null) {
    return 'The memory is not known before the model is on this machine.';
  }
  const each =
    fit.processes > 1 ? ` in each of ${fit.processes} processes;` : ' of';
  const needed = `${formatBytes(fit.memory.total)}${each}`;
  const free = `${formatBytes(room.free)} free`;
  if (room.fits) {
    return `Fits: ${needed} ${free} on ${room.device}`;
  }
  const none = fit.changes.length
    ? ''
    : '. No change of the settings is enough';
  return `Does not fit: ${needed} ${formatBytes(room.usable)} usable (${free}) on ${room.device}${none}`;
}

/** @param {Fit} fit */
function factLines(fit) {
  const lines = [];
  const time = fit.time;
  if (
    time &&
    time.seconds !== null &&
    time.low !== null &&
    time.high !== null
  ) {
    const span = `${formatDuration(time.low)} to ${formatDuration(time.high)}`;
    lines.push(
      `Time ${formatDuration(time.seconds)} (${span}) for ${withUnit(time.steps ?? 0, 'step')}`
    );
  }
  if (time) {
    lines.push(`${withUnit(time.tokens_per_second, 'token')} per second`);
  }
  const { needed, free } = fit.disk;
  if (needed !== null) {
    lines.push(`Disk ${formatBytes(needed)} of ${formatBytes(free)} free`);
  }
  if (fit.gradient_checkpointing) {
    lines.push('Gradient checkpointing is on');
  }
  for (const room of fit.devices.slice(1)) {
    lines.push(`${room.device}: ${formatBytes(room.free)} free`);
  }
  return lines;
}

/**
 * Draws the parts side by side; the line is the free memory.
 * @param {HTMLElement} bar
 * @param {Record<string, number>} memory
 * @param {Room} room
 */
function drawBar(bar, memory, room) {
  const whole = Math.max(memory.total, room.free) || 1;
  const share = (/** @type {number} */ bytes) => `${(100 * bytes) / whole}%`;
  while (bar.children.length < PARTS.length + 1) {
    bar.append(h('i'));
  }
  PARTS.forEach((name, index) => {
    const part = /** @type {HTMLElement} */ (bar.children[index]);
    part.className = `m${index + 1}`;
    part.style.width = share(memory[name]);
    part.title = `${name} ${formatBytes(memory[name])}`;
  });
  const limit = /** @type {HTMLElement} */ (bar.children[PARTS.length]);
  limit.className = 'llf-Fit-limit';
  limit.style.left = share(room.usable);
  limit.title = `${formatBytes(room.usable)} usable of ${formatBytes(room.free)} free`;
  const parts = PARTS.map(name => `${name} ${formatBytes(memory[name])}`);
  bar.setAttribute(
    'aria-label',
    `Memory ${formatBytes(memory.total)} of ${formatBytes(room.free)} free: ${parts.join(', ')}`
  );
}

/**
 * Lists the parts that are not empty, with their sizes.
 * @param {HTMLElement} key
 * @param {Record<string, number>} memory
 */
function drawKey(key, memory) {
  const shown = PARTS.map((name, index) => ({ name, index })).filter(
    ({ name }) => memory[name] > 0
  );
  drawTexts(
    key,
    shown.map(
      ({ name, index }) => `${index + 1}\n${name} ${formatBytes(memory[name])}`
    ),
    line => {
      const [index, text] = line.split('\n');
      return h(
        'li',
        {},
        h('span', { class: `llf-key m${index}`, 'aria-hidden': 'true' }),
        text
      );
    }
  );
}
