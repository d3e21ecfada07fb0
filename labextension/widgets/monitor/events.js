// The events of a run and the last lines of its log, below the charts.

import { drawKeyed, h, setText } from '../shared/dom.js';
import { formatTime } from '../../src/dates';
import { formatCount } from '../../src/numbers';

/** @import { Feed } from './feed.js' */

const FEW_EVENTS = 8; // events shown until a click on "All N events"

/** @typedef {{time: number | null, step: number | null, text: string}} Row */

/** Draws the events and the log. @param {Feed} feed */
export function eventsSection(feed) {
  let showAll = false;
  /** @type {string[]} */
  let drawnLines = [];
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
    setText(
      more,
      showAll ? `Last ${FEW_EVENTS} events` : `All ${rows.length} events`
    );
    more.hidden = rows.length <= FEW_EVENTS;
    more.setAttribute('aria-expanded', String(showAll));
    drawKeyed(
      body,
      showAll ? rows : rows.slice(0, FEW_EVENTS),
      JSON.stringify,
      eventRow
    );
  }

  /** Draws the log. Lines that stay are not touched, so that a selection and the reader's place are kept. */
  function drawLog() {
    /** @type {{lines?: string[], path?: string}} */
    const { lines = [], path = '' } = feed.get('log') ?? {};
    const last =
      lines.length === 1 ? 'last line' : `last ${lines.length} lines`;
    setText(count, lines.length ? `${last} of ${path}` : 'empty so far');
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
    const height = log.scrollHeight;
    const gone = droppedLines(drawnLines, lines);
    for (let index = 0; index < gone; index += 1) {
      log.firstChild?.remove();
    }
    if (!atEnd) {
      log.scrollTop -= height - log.scrollHeight;
    }
    log.append(...lines.slice(drawnLines.length - gone).map(logLine));
    drawnLines = lines;
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

/** Draws an event: its step, or else its time, and what happened. @param {Row} row */
function eventRow({ step, time, text }) {
  const when =
    step === null ? (time === null ? '' : formatTime(time)) : formatCount(step);
  return h('tr', {}, h('td', { class: 'llf-num' }, when), h('td', {}, text));
}

/** Draws a line of the log; the time at its beginning looks secondary. @param {string} line */
function logLine(line) {
  const time = line.match(/^\d\d:\d\d:\d\d/);
  return time
    ? h('span', {}, h('i', {}, time[0]), `${line.slice(8)}\n`)
    : h('span', {}, `${line}\n`);
}

/**
 * Returns how many lines at the beginning of `before` are no longer in `after`, which continues the rest of it.
 * @param {string[]} before
 * @param {string[]} after
 */
export function droppedLines(before, after) {
  for (let gone = 0; gone < before.length; gone += 1) {
    if (
      before.length - gone <= after.length &&
      before.every(
        (line, index) => index < gone || line === after[index - gone]
      )
    ) {
      return gone;
    }
  }
  return before.length;
}
