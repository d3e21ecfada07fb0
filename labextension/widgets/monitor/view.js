// Entry point of the monitor: header, charts, completions, events and log, all from one feed.

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
import { trainedSection } from './trained.js';

/** @import { Model } from '../shared/model' */
/** @import { Page } from '../shared/page_cell.js' */

/**
 * Draws a monitor, for a widget of the kernel or without a kernel.
 * @param {object} context
 * @param {Model} [context.model] the kernel's widget
 * @param {HTMLElement} context.el
 * @param {string} [context.run] id of the run, if there is no model
 * @param {string} [context.home] `home_hash` of its LLF_HOME
 * @param {Page} [context.page] not anywidget's `host`
 * @fires llf-head whenever the section `head` changes, with `{run, head}`, so that the page can update the saved output
 * @returns {() => void} closes the monitor
 */
function render({
  model,
  el,
  run = model?.get('run_id'),
  home = model?.get('home'),
  page = /** @type {any} */ (globalThis).llfHost
}) {
  const feed = runFeed({ run, home, model, page });
  /** @type {{box: HTMLElement, close?: () => void}[]} */
  const sections = [
    headSection(feed),
    chartsSection(feed),
    completionsSection(feed),
    answersSection(feed),
    trainedSection(feed),
    eventsSection(feed)
  ];
  el.classList.add('llf-Part');
  el.dataset.llfRun = run; // by which the panel finds it
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
