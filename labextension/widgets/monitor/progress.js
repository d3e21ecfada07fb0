// How far the run is: the bar, the step, and the times, which change every second.

import { h, setText } from '../shared/dom.js';
import { formatTime } from '../../src/dates';
import { formatCount, formatDuration } from '../../src/numbers';

/** @import { Feed } from './feed.js' */
/** @import { HeadData } from './head.js' */

const ANNOUNCE_INTERVAL = 8000; // ms between two progress texts for screen readers

/** Creates a text with a bold part. Its nodes stay, so that a selection is kept. */
function textWithBold() {
  const [before, after] = [new Text(), new Text()];
  const bold = h('b');
  const node = h('span', {}, before, bold, after);
  return {
    node,
    show(
      /** @type {string} */ head,
      /** @type {string} */ value,
      /** @type {string} */ tail = ''
    ) {
      for (const [part, text] of /** @type {[CharacterData, string][]} */ ([
        [before, head],
        [after, tail]
      ])) {
        if (part.data !== text) {
          part.data = text;
        }
      }
      setText(bold, value);
    }
  };
}

/** Formats how long ago something was. */
function formatAgo(/** @type {number} */ seconds) {
  return seconds < 1.5
    ? '1 s ago'
    : seconds < 60
      ? `${Math.round(seconds)} s ago`
      : `${formatDuration(seconds)} ago`;
}

/** Draws the progress of a run. @param {Feed} feed */
export function progressSection(feed) {
  let announcedAt = 0;
  const barFill = h('i');
  const bar = h(
    'div',
    { class: 'llf-Progress', role: 'progressbar', 'aria-valuemin': '0' },
    barFill
  );
  const step = textWithBold();
  const epoch = h('span');
  const elapsed = textWithBold();
  const remaining = textWithBold();
  const eta = h('span', { class: 'llf-secondary' });
  const lastCheckpoint = h('span', { class: 'llf-secondary' });
  const updated = h('span', { class: 'llf-secondary llf-push' });
  const line = h(
    'div',
    { class: 'llf-Monitor-progress' },
    step.node,
    epoch,
    elapsed.node,
    remaining.node,
    eta,
    lastCheckpoint,
    updated
  );
  const announcement = h('span', { class: 'llf-sr', role: 'status' });

  /** Shows the step of the run. @param {HeadData} v */
  function draw(v) {
    const share = v.total > 0 ? Math.min(1, v.step / v.total) : 0;
    barFill.style.width = `${100 * share}%`;
    bar.setAttribute('aria-label', `Progress of ${v.name}`);
    if (v.total > 0) {
      bar.setAttribute('aria-valuemax', String(v.total));
      bar.setAttribute('aria-valuenow', String(v.step));
    } else {
      bar.removeAttribute('aria-valuemax'); // of an unknown number of steps
      bar.removeAttribute('aria-valuenow');
    }
    step.show(
      'step ',
      formatCount(v.step),
      v.total > 0 ? ` of ${formatCount(v.total)}` : ''
    );
    setText(
      epoch,
      v.epoch === null
        ? ''
        : `epoch ${v.epoch}${v.epochs ? ` of ${v.epochs}` : ''}`
    );
  }

  /**
   * Shows what changes with time alone.
   * @param {HeadData} v
   * @param {boolean} isDisconnected whether nothing is known of the run at present
   */
  function drawTimes(v, isDisconnected) {
    const now = feed.now();
    const passed = Math.max(0, now - v.now);
    elapsed.node.hidden = isDisconnected;
    elapsed.show('elapsed ', formatDuration(v.elapsed + (v.live ? passed : 0)));
    const left =
      v.remaining === null || isDisconnected
        ? null
        : Math.max(0, v.remaining - passed);
    remaining.node.hidden = left === null;
    remaining.show('remaining ', left === null ? '' : formatDuration(left));
    setText(eta, left === null ? '' : `ETA ${formatTime(now + left)}`);
    setText(
      lastCheckpoint,
      v.checkpoint_time === null || !v.live
        ? ''
        : `last checkpoint ${formatDuration(now - v.checkpoint_time)} ago`
    );
    setText(
      updated,
      v.heartbeat === null || !v.live
        ? ''
        : `updated ${formatAgo(now - v.heartbeat)}`
    );
    announce(v, left);
  }

  /** Tells a screen reader the progress, not too often. */
  function announce(
    /** @type {HeadData} */ v,
    /** @type {number | null} */ left
  ) {
    if (performance.now() - announcedAt < ANNOUNCE_INTERVAL) {
      return;
    }
    announcedAt = performance.now();
    const text =
      v.total > 0
        ? `step ${v.step} of ${v.total}${left === null ? '' : `, ${formatDuration(left)} remaining`}`
        : `step ${v.step}`;
    bar.setAttribute('aria-valuetext', text);
    setText(
      announcement,
      v.live ? `${v.name} ${v.state}, ${text}` : `${v.name} ${v.state}`
    );
  }

  return { bar, line, announcement, draw, drawTimes };
}
