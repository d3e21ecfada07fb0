import { Dialog, Notification, showDialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';

import type { IBinned, IRun } from './api';
import { called } from './format';
import { bytes } from './numbers';
import type { RunsModel } from './model';

/** How long Undo is offered; the bin keeps the runs for longer. */
const UNDO_SECONDS = 20;

type Named = Pick<IRun, 'id' | 'name'>;

/** Moves runs to and from the bin, and removes them from it. */
export class BinActions {
  constructor(
    private _model: RunsModel,
    private _trans: TranslationBundle
  ) {}

  /** Whether something was deleted in this page and not restored. */
  get canUndo(): boolean {
    return this._last !== null;
  }

  /** Moves runs to the bin; a notification offers to restore all of them. */
  async remove(runs: readonly IRun[]): Promise<void> {
    const { _model: model, _trans: trans } = this;
    const asked = runs.filter(run => !this._moving.has(run.id));
    if (!asked.length) {
      return; // a key pressed twice
    }
    asked.forEach(run => this._moving.add(run.id));
    await model.open(null);
    model.select();
    const done = await model.each(
      asked,
      run => model.api.remove(run.id),
      done => this._say(done, trans.__('moved to the bin'))
    );
    asked.forEach(run => this._moving.delete(run.id));
    if (!done.length) {
      return;
    }
    const notice = Notification.info(
      this._say(done, trans.__('moved to the bin')),
      {
        autoClose: UNDO_SECONDS * 1000,
        actions: [
          { label: trans.__('Undo'), callback: () => void this.restore(done) }
        ]
      }
    );
    this._last = { runs: done, notice };
  }

  /** Restores what was deleted last. */
  async undo(): Promise<void> {
    if (this._last) {
      await this.restore(this._last.runs);
    }
  }

  /** Moves runs back from the bin. */
  async restore(runs: readonly Named[]): Promise<void> {
    const { _model: model, _trans: trans } = this;
    if (this._last?.runs.some(run => runs.some(one => one.id === run.id))) {
      Notification.dismiss(this._last.notice);
      this._last = null;
    }
    await model.each(
      runs,
      run => model.api.restore(run.id),
      done => this._say(done, trans.__('restored'))
    );
  }

  /** Removes runs from the bin for good, once somebody has said so twice. */
  async removeForGood(runs: readonly IBinned[]): Promise<void> {
    const { _model: model, _trans: trans } = this;
    const size = bytes(runs.reduce((sum, run) => sum + run.bytes, 0));
    const { button } = await showDialog({
      title:
        runs.length === 1
          ? trans.__('Permanently delete “%1”?', called(runs[0]))
          : trans.__('Permanently delete %1 runs?', runs.length),
      body: trans.__(
        'Config, metrics, checkpoints and results will be removed from the disk (%1). This cannot be undone.',
        size
      ),
      defaultButton: 0, // Enter, pressed in haste, removes nothing
      buttons: [
        Dialog.cancelButton(),
        Dialog.warnButton({ label: trans.__('Delete permanently') })
      ]
    });
    if (button.accept) {
      await model.each(
        runs,
        run => model.api.removeForGood(run.id),
        done => this._say(done, trans.__('permanently deleted'))
      );
    }
  }

  /** `“name” moved to the bin.`, `2 runs moved to the bin.` */
  private _say(runs: readonly Named[], what: string): string {
    return runs.length === 1
      ? this._trans.__('“%1” %2.', called(runs[0]), what)
      : this._trans.__('%1 runs %2.', runs.length, what);
  }

  /** The runs that are just being moved to the bin. */
  private _moving = new Set<string>();
  private _last: { runs: readonly Named[]; notice: string } | null = null;
}
