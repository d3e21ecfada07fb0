// The events of a run and the last lines of its log, below the charts.

import { formatTime, h } from '../shared/dom.js';

/** @import { Feed } from './feed.js' */

const FEW_EVENTS = 8; // events shown until a click on "All N events"

/** @typedef {{time: number | null, step: number | null, text: string}} Row */

/** Draws the events and the log. @param {Feed} feed */
export function eventsSection(feed) {
  let showAll = false;
  const title = h('h3', {}, 'Events');
  const more = h('button', {
    type: 'button',
    class: 'llf-link llf-push',
    onclick: () => {
      showAll = !showAll;
      drawEvents();
    }
  });
  const body = h('tbody');
  const count = h('span', { class: 'llf-secondary llf-small' });
  const log = h('pre', {
    class: 'llf-Log',
    tabindex: '0',
    'aria-label': 'Last lines of the log'
  });
  const box = h(
    'div',
    { class: 'llf-Monitor-below' },
    h(
      'section',
      { 'aria-label': 'Events' },
      h('div', { class: 'llf-row', style: 'margin-bottom:2px' }, title, more),
      h('table', { class: 'llf-Table llf-Events' }, body)
    ),
    h(
      'section',
      { 'aria-label': 'Log' },
      h(
        'div',
        { class: 'llf-row', style: 'margin-bottom:4px' },
        h('h3', {}, 'Log'),
        count
      ),
      log
    )
  );

  function drawEvents() {
    /** @type {Row[]} */
    const rows = feed.get('events') ?? [];
    more.textContent = showAll
      ? `Last ${FEW_EVENTS} events`
      : `All ${rows.length} events`;
    more.hidden = rows.length <= FEW_EVENTS;
    more.setAttribute('aria-expanded', String(showAll));
    body.replaceChildren(
      ...(showAll ? rows : rows.slice(0, FEW_EVENTS)).map(row =>
        h(
          'tr',
          {},
          h(
            'td',
            { class: 'llf-num' },
            row.step === null
              ? row.time === null
                ? ''
                : formatTime(row.time)
              : row.step.toLocaleString('en')
          ),
          h('td', {}, row.text)
        )
      )
    );
  }

  function drawLog() {
    /** @type {{lines?: string[], path?: string}} */
    const { lines = [], path = '' } = feed.get('log') ?? {};
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
    const last =
      lines.length === 1 ? 'last line' : `last ${lines.length} lines`;
    count.textContent = lines.length ? `${last} of ${path}` : 'empty so far';
    log.replaceChildren(
      ...lines.flatMap(line => {
        const time = line.match(/^\d\d:\d\d:\d\d/);
        return time
          ? [h('i', {}, time[0]), `${line.slice(8)}\n`]
          : [`${line}\n`];
      })
    );
    if (atEnd) {
      log.scrollTop = log.scrollHeight;
    }
  }

  feed.on('events', drawEvents);
  feed.on('log', drawLog);
  drawEvents();
  drawLog();
  requestAnimationFrame(() => {
    log.scrollTop = log.scrollHeight;
  });
  return { box };
}
