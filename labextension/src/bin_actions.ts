import { Dialog, Notification, showDialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';

import type { IDeletedRun, IRun } from './api';
import { displayName } from './format';
import { formatBytes } from './numbers';
import type { RunsModel } from './model';

/** How long the notification offers Undo. The bin keeps the runs for longer. */
const UNDO_SECONDS = 20;

type RunLabel = Pick<IRun, 'id' | 'name'>;

/** Moves runs to the bin, restores them and deletes them permanently; remembers the last move so that it can be undone. */
export class BinActions {
  constructor(
    private _model: RunsModel,
    private _trans: TranslationBundle
  ) {}

  /** Whether this page moved runs to the bin and has not restored them. */
  get canUndo(): boolean {
    return this._lastMove !== null;
  }

  /** Moves runs to the bin and shows a notification with an Undo button for all of them. */
  async moveToBin(runs: readonly IRun[]): Promise<void> {
    const { _model: model, _trans: trans } = this;
    const pending = runs.filter(run => !this._pending.has(run.id));
    if (!pending.length) {
      return; // the key was pressed twice
    }
    pending.forEach(run => this._pending.add(run.id));
    await model.openDetails(null);
    model.select();
    const moved = await model.runForEach(
      pending,
      run => model.api.moveToBin(run.id),
      moved => this._describe(moved, trans.__('moved to the bin'))
    );
    pending.forEach(run => this._pending.delete(run.id));
    if (!moved.length) {
      return;
    }
    const notificationId = Notification.info(
      this._describe(moved, trans.__('moved to the bin')),
      {
        autoClose: UNDO_SECONDS * 1000,
        actions: [
          { label: trans.__('Undo'), callback: () => void this.restore(moved) }
        ]
      }
    );
    this._lastMove = { runs: moved, notice: notificationId };
  }

  /** Restores the runs that were moved to the bin last. */
  async undoMove(): Promise<void> {
    if (this._lastMove) {
      await this.restore(this._lastMove.runs);
    }
  }

  /** Restores runs from the bin, and dismisses the Undo notification that offered it. */
  async restore(runs: readonly RunLabel[]): Promise<void> {
    const { _model: model, _trans: trans } = this;
    if (
      this._lastMove?.runs.some(run =>
        runs.some(restored => restored.id === run.id)
      )
    ) {
      Notification.dismiss(this._lastMove.notice);
      this._lastMove = null;
    }
    await model.runForEach(
      runs,
      run => model.api.restore(run.id),
      done => this._describe(done, trans.__('restored'))
    );
  }

  /** Deletes runs of the bin permanently, after a dialog has asked for confirmation. */
  async deletePermanently(runs: readonly IDeletedRun[]): Promise<void> {
    const { _model: model, _trans: trans } = this;
    const size = formatBytes(runs.reduce((sum, run) => sum + run.bytes, 0));
    const { button } = await showDialog({
      title:
        runs.length === 1
          ? trans.__('Permanently delete “%1”?', displayName(runs[0]))
          : trans.__('Permanently delete %1 runs?', runs.length),
      body: trans.__(
        'Config, metrics, checkpoints and results will be removed from the disk (%1). This cannot be undone.',
        size
      ),
      defaultButton: 0, // Enter cancels: nothing is deleted by accident
      buttons: [
        Dialog.cancelButton(),
        Dialog.warnButton({ label: trans.__('Delete permanently') })
      ]
    });
    if (button.accept) {
      await model.runForEach(
        runs,
        run => model.api.deletePermanently(run.id),
        done => this._describe(done, trans.__('permanently deleted'))
      );
    }
  }

  /** Returns a sentence such as `“name” moved to the bin.` or `2 runs moved to the bin.` */
  private _describe(runs: readonly RunLabel[], outcome: string): string {
    return runs.length === 1
      ? this._trans.__('“%1” %2.', displayName(runs[0]), outcome)
      : this._trans.__('%1 runs %2.', runs.length, outcome);
  }

  /** Ids of the runs whose move is in progress, so that a second key press does not move them again. */
  private _pending = new Set<string>();
  private _lastMove: { runs: readonly RunLabel[]; notice: string } | null =
    null;
}
