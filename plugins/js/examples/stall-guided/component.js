import * as host from "loadline:policy/host@0.1.0";
import { exported } from "../../index.js";
import * as stallGuided from "./stall-guided.js";

export const policy = exported(stallGuided, host);
