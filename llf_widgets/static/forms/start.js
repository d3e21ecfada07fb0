// @ts-check
const LOST = { level: 'error', text: 'This form has lost its kernel. Nothing of a started run is lost. Run this cell again.', fixes: [] };

/** Start, the queue, the run's name, and the sentence that says why Start is off or what it will do. */
function render({ model, el: host }) {
  let alive = true;
  const start = button('Start', () => pending.send({ type: 'start' }), 'llf-primary');
  const queue = button('Add to queue', () => pending.send({ type: 'queue' }));
  queue.title = 'Begins when nothing else goes on this machine';
  const name = /** @type {HTMLInputElement} */ (h('input', { type: 'text', 'aria-label': 'Name', spellcheck: 'false' }));
  name.addEventListener('change', () => {
    model.set('_name', name.value);
    model.save_changes();
  });
  const label = h('label', { class: 'llf-2' }, 'Name');
  const why = h('p', { id: `llf-why-${Math.random().toString(36).slice(2)}`, role: 'status' });
  const messages = h('div', { class: 'llf-Start-messages' });
  for (const node of [start, queue]) node.setAttribute('aria-describedby', why.id);
  host.replaceChildren(
    h('section', { class: 'llf-Start', 'aria-label': 'Start' }, h('span', { class: 'llf-Start-buttons' }, start, queue), label, name, why, messages)
  );

  const draw = () => {
    const waits = pending.state.waits;
    for (const node of [start, queue]) turnOff(node, waits || !alive || !model.get('_ready'));
    say(start, waits ? 'Starting…' : 'Start');
    queue.hidden = !model.get('_busy');
    if (document.activeElement !== name) name.value = model.get('_name');
    name.placeholder = model.get('_suggested');
    const parts = waits ? [[pending.words()]] : model.get('_sentence').map(part =>
      part.key
        ? [button(part.text, () => model.send({ type: 'goto', key: part.key }), 'llf-link')]
        : prose(part.text)
    );
    why.replaceChildren(...parts.flat());
    const list = alive ? model.get('_messages') : [LOST];
    drawMessages(messages, list, (message, fix) => model.send({ type: 'fix', message, fix }));
  };
  const lost = () => {
    alive = false;
    draw();
  };
  const pending = starting(model, draw);
  const reveal = (/** @type {any} */ content) => content.type === 'reveal' && show(host, `.${content.part}`, REVEAL_MS);
  model.on('change', draw);
  model.on('comm_live_update', lost);
  model.on('msg:custom', reveal);
  draw();
  warm();
  return () => {
    pending.end();
    model.off('msg:custom', reveal);
    model.off('change', draw);
    model.off('comm_live_update', lost);
  };
}

const REVEAL_MS = 5000;
const FOLLOW_MS = 10000;

/**
 * Scrolls a part of the form to the top once it stands there, and again while it grows, until the reader moves.
 * @param {HTMLElement} host
 * @param {string} part
 * @param {number} left milliseconds to wait for it
 */
function show(host, part, left) {
  const node = host.closest('.llf-Studio')?.querySelector(part);
  if (!node) {
    if (left > 0) setTimeout(() => show(host, part, left - 50), 50);
    return;
  }
  const moves = ['wheel', 'touchstart', 'pointerdown', 'keydown'];
  const follow = new ResizeObserver(() => node.scrollIntoView({ block: 'start' }));
  const end = () => {
    follow.disconnect();
    moves.forEach(move => window.removeEventListener(move, end, true));
  };
  moves.forEach(move => window.addEventListener(move, end, true));
  setTimeout(end, FOLLOW_MS);
  follow.observe(node); // which calls it once at once
}

export default { initialize, render };
