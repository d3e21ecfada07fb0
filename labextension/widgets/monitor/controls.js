// The controls of a run: buttons, numbers that can be changed, the kill confirmation, and the review of foreign code.

import { createButton, setDisabled } from '../shared/buttons.js';
import { drawKeyed, h, keepFocus, setText } from '../shared/dom.js';
import { codeNotice } from '../shared/foreign_code.js';
import { jupyterServer } from '../shared/server.js';
import { showExamples } from './chart_controls.js';
import { killControl } from './kill_control.js';
import { numberSetting } from './number_setting.js';
import { runRequests } from './requests.js';

/** @import { Feed } from './feed.js' */
/** @import { HeadData } from './head.js' */

const REPEATABLE = ['checkpoint', 'evaluate', 'sample', 'set', 'examples']; // requests that may be repeated

/** Returns the labels of a run's buttons by action, in no order. @param {HeadData} head @returns {Record<string, string>} */
function actionLabels({ state, resume_label: resume }) {
  return {
    stop:
      { queued: 'Remove from queue', starting: 'Stop' }[state] ??
      'Stop with checkpoint',
    checkpoint: 'Save checkpoint',
    evaluate: 'Evaluate now',
    sample: 'Generate samples now',
    resume,
    examples: 'Show rows…'
  };
}

/**
 * Creates the controls of a run. Buttons are updated in place, so that a head that arrives takes no click and no focus.
 * @param {Feed} feed
 * @param {() => HTMLElement} fallback gets the focus when the controls disappear
 */
export function runControls(feed, fallback) {
  let closed = false;
  let requested = ''; // the request that the run has not carried out yet
  let showsDelay = true; // whether the status shows how long a request may take
  let trust = ''; // hash of the code that is under review

  /** @returns {HeadData} */
  const head = () => feed.get('head') ?? {};

  const buttons = h('span', { class: 'llf-row' });
  const status = h('span', {
    class: 'llf-secondary llf-small',
    role: 'status'
  });
  const showStatus = (/** @type {string} */ text) => {
    showsDelay = false;
    setText(status, text);
  };
  const requests = runRequests(feed, showStatus, () => {
    requested = ''; // it may be lost, so it can be sent again
    drawActions();
  });
  const rateSetting = numberSetting(
    'Peak learning rate',
    { inputmode: 'decimal' },
    value => void act('set', { learning_rate: value }),
    showStatus
  );
  const endSetting = numberSetting(
    'End at step',
    { inputmode: 'numeric' },
    value => void act('set', { max_steps: value }),
    showStatus
  );
  const kill = killControl(() => void act('kill'));
  const box = h(
    'div',
    {
      class: 'llf-Monitor-controls',
      role: 'group',
      tabindex: '-1',
      'aria-label': 'Control the run'
    },
    buttons,
    rateSetting.box,
    endSetting.box,
    status,
    kill.box
  );
  const notice = codeNotice({
    purpose:
      'This run was created on another machine or modified since. Resuming it executes this code.',
    label: 'Allow this code and resume',
    progress: 'Resuming…',
    onAllow: () => {
      notice.show([]);
      void act('resume', { trust });
    },
    onCancel: () => {
      notice.show([]);
      setText(status, '');
    },
    fallback: () => box
  });

  /** Shows the controls of the current head. */
  function draw() {
    const { actions, request_delay, peak_learning_rate, total } = head();
    if (requested && !actions.includes(requested)) {
      requested = '';
      showsDelay = true;
    }
    if (showsDelay) {
      setText(status, request_delay);
    }
    drawActions();
    rateSetting.show(peak_learning_rate);
    endSetting.show(total ? String(total) : '');
  }

  function drawActions() {
    const { actions, checkpoints } = head();
    const labels = actionLabels(head());
    const link = actions.includes('download') ? downloadAddress() : '';
    const unreachable = head().live && !feed.source();
    keepFocus(
      box,
      () => {
        for (const setting of [rateSetting, endSetting]) {
          setting.box.hidden = !actions.includes('set');
          setting.setDisabled(unreachable);
        }
        drawKeyed(
          buttons,
          actions.filter(
            action => action in labels || (action === 'download' && link)
          ),
          action => action,
          action =>
            action === 'download' ? downloadLink(link) : actionButton(action),
          (node, action) => {
            if (node instanceof HTMLButtonElement) {
              setText(node, labels[action]);
              setDisabled(node, unreachable || requested === action);
            }
          }
        );
        kill.show(
          actions.includes('kill'),
          unreachable || requested === 'kill',
          checkpoints.at(-1)
        );
        box.hidden = !buttons.hasChildNodes() && !kill.box.hasChildNodes();
      },
      () => (box.hidden ? fallback() : box)
    );
  }

  function actionButton(/** @type {string} */ action) {
    const button = createButton('', () => void act(action));
    button.dataset.action = action;
    return button;
  }

  /** Returns the address of the result as a zip file; empty if there is no Jupyter server. */
  function downloadAddress() {
    const server = jupyterServer();
    return server
      ? new URL(
          `${server.base}llf/api/runs/${feed.run}/output.zip`,
          location.href
        ).href
      : '';
  }

  function downloadLink(/** @type {string} */ href) {
    return h(
      'a',
      { href, download: `${feed.run}.zip`, 'data-action': 'download' },
      'Download result (zip)'
    );
  }

  /** Carries out an action: sends its request, and shows what becomes of it. */
  async function act(
    /** @type {string} */ action,
    /** @type {Record<string, any>} */ args = {}
  ) {
    if (action === 'examples') {
      return showExamples(feed, status);
    }
    requested = action;
    showsDelay = false;
    drawActions();
    const { ok, text } =
      action === 'resume'
        ? await resume(args.trust ?? '')
        : await requests.send(action, args);
    if (closed) {
      return;
    }
    setText(status, text);
    if (!ok || REPEATABLE.includes(action)) {
      requested = '';
    }
    drawActions();
    feed.refresh();
  }

  /**
   * Resumes the run. If the run comes from elsewhere, its code is shown first.
   * @param {string} allowed hash of the code that the user has allowed; empty at first
   */
  async function resume(allowed) {
    if (!allowed) {
      setText(status, 'Reading the code of this run…');
      const { code = [], sha256 = '' } = await requests.foreignCode();
      if (code.length) {
        trust = sha256;
        notice.show(code);
        notice.focus();
        return {
          ok: false,
          text: 'Not resumed yet. Review the code of this run first.'
        };
      }
    }
    return requests.resume(allowed);
  }

  return {
    box,
    notice: notice.box,
    draw,
    /** Changes numbers of the live run. @param {object} change */
    change: change => void act('set', change),
    close: () => {
      closed = true;
      notice.close();
    }
  };
}
