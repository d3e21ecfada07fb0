// A button that shows the charts which are looked at only where something is odd, and hides them again.

/** @param {{model: any, el: HTMLElement}} context */
function render({ model, el }) {
  const button = h('button', { type: 'button', onclick: () => { model.set('shows_all', !model.get('shows_all')); model.save_changes(); } });
  const what = h('span', { class: 'llf-2 llf-small' });
  const row = h('div', { class: 'llf-row llf-Monitor-more' }, button, what);
  el.classList.add('llf-Part');
  el.append(row);

  function draw() {
    /** @type {string[]} */
    const titles = model.get('left_out');
    const open = model.get('shows_all');
    row.hidden = !open && !titles.length;
    button.setAttribute('aria-expanded', String(open));
    say(button, open ? 'Show fewer charts' : `Show ${titles.length} more charts`);
    say(what, open ? '' : titles.join(' · '));
  }

  for (const name of ['left_out', 'shows_all']) model.on(`change:${name}`, draw);
  draw();
  return () => { for (const name of ['left_out', 'shows_all']) model.off(`change:${name}`, draw); };
}

export default { render };
