/** Something that this machine lacks, or that did not work, with what to do about it: printed as it is. */
export class LabProblem extends Error {}
