/** What a client's calls throw. */
import { errnoName } from '@siov/layout/uapi';
import { commandNames } from './spec/protocol.js';

/** The server refused: errno as in linux/errno.h, 0 when it gave none. */
export class VfioUserError extends Error {
  readonly command: number;
  readonly errno: number;
  constructor(command: number, errno: number) {
    super(`${commandNames[command] ?? `command ${command}`}: ${errno === 0 ? 'refused' : errnoName(errno)}`);
    this.name = 'VfioUserError';
    this.command = command;
    this.errno = errno;
  }
}
/** The server closed the connection, or did not answer in time. */
export class ConnectionLostError extends Error {
  constructor(why: string) {
    super(why);
    this.name = 'ConnectionLostError';
  }
}
