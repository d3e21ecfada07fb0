// The monitor of a run: head, charts, answers, events and log, all from one feed.

import '../shared/llf.css';
import '../shared/plotly_colors.css';
import './monitor.css';
import { initialize } from '../shared/initialize.js';
import { answersSection } from './answers.js';
import { chartsSection } from './chart_controls.js';
import { eventsSection } from './events.js';
import { runFeed } from './feed.js';
import { headSection } from './head.js';
import { completionsSection } from './completions.js';

/** @import { Model } from '../shared/model' */
/** @import { Host } from './feed.js' */

/**
 * Draws a monitor, for the kernel's widget or without one.
 * @param {object} context
 * @param {Model} [context.model] the kernel's widget
 * @param {HTMLElement} context.el
 * @param {string} [context.run] the run, where there is no model
 * @param {string} [context.home] `home_hash` of its LLF_HOME
 * @param {Host} [context.page] else what LLF's extension offers to all views of a page; what anywidget calls `host` is another thing
 * @fires llf-head whenever the part `head` changes, with `{run, head}`: whoever holds the view can keep what it says
 * @returns {() => void} ends it
 */
function render({
  model,
  el,
  run = model?.get('run_id'),
  home = model?.get('home'),
  page = /** @type {any} */ (globalThis).llfHost
}) {
  const feed = runFeed({ run, home, model, host: page });
  /** @type {{box: HTMLElement, close?: () => void}[]} */
  const sections = [
    headSection(feed),
    chartsSection(feed),
    completionsSection(feed),
    answersSection(feed),
    eventsSection(feed)
  ];
  el.classList.add('llf-Part');
  el.append(...sections.map(({ box }) => box));
  feed.on('head', () => {
    el.dispatchEvent(
      new CustomEvent('llf-head', {
        bubbles: true,
        detail: { run, head: feed.get('head') }
      })
    );
  });
  return () => {
    for (const section of sections) {
      section.close?.();
    }
    feed.close();
  };
}

export default { initialize, render };
