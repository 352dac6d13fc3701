mod plan_laws;
mod scenarios;
