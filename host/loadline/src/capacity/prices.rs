//! What an hour of a card costs, as its user says.

use std::collections::BTreeMap;

use loadline_core::Nanos;
use serde::Deserialize;

use crate::Error;

/// Prices by profile, as `prices.toml` has them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// The unit of all prices, such as `EUR`.
    pub currency: String,
    /// Hours of work that a bought card does in its life; needed if any card has a `purchase` price.
    #[serde(default)]
    pub hours_of_use: Option<f64>,
    /// Cards by the name of their profile.
    #[serde(default)]
    pub gpu: BTreeMap<String, Price>,
}

/// The price of one card: rented, or bought.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Rent for an hour.
    #[serde(default)]
    pub per_hour: Option<f64>,
    /// The price of the card itself.
    #[serde(default)]
    pub purchase: Option<f64>,
}

impl Prices {
    /// Reads prices. `name` is the file's, for messages.
    ///
    /// # Errors
    /// If it is no TOML, a field is unknown, a price is negative or not a number, or a bought card has no hours of use.
    pub fn parse(text: &str, name: &str) -> Result<Self, Error> {
        let bad = |what: String| Error::Request(format!("{name}: {what}"));
        let prices: Self = toml::from_str(text).map_err(|e| bad(e.to_string().trim_end().to_owned()))?;
        let numbers = prices.gpu.iter().flat_map(|(gpu, price)| {
            [("per_hour", price.per_hour), ("purchase", price.purchase)].map(|(field, value)| (gpu, field, value))
        });
        for (gpu, field, value) in numbers {
            if value.is_some_and(|v| !v.is_finite() || v < 0.0) {
                return Err(bad(format!("gpu.\"{gpu}\".{field} is no price: write a number that is not negative")));
            }
        }
        if let Some((gpu, _)) = prices.gpu.iter().find(|(_, p)| p.per_hour.is_none() && p.purchase.is_none()) {
            return Err(bad(format!("gpu.\"{gpu}\" has no price: give per_hour or purchase")));
        }
        let bought = prices.gpu.values().any(|p| p.per_hour.is_none());
        if bought && !prices.hours_of_use.is_some_and(|h| h.is_finite() && h > 0.0) {
            return Err(bad("a purchase price needs hours_of_use: the hours that a card works in its life".to_owned()));
        }
        Ok(prices)
    }

    /// What so much time on a card costs; nothing if its price is not known. Rent counts before purchase.
    #[must_use]
    pub fn cost(&self, gpu: &str, time: Nanos) -> Option<f64> {
        let price = self.gpu.get(gpu)?;
        let per_hour = price.per_hour.or_else(|| Some(price.purchase? / self.hours_of_use?))?;
        Some(per_hour * time.as_f64() / 3.6e12)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn prices_are_per_hour_or_over_a_life() {
        let text = "currency = 'EUR'\nhours_of_use = 1000\n[gpu.a]\nper_hour = 2\n[gpu.b]\npurchase = 500";
        let prices = Prices::parse(text, "p").unwrap();
        let hour = Nanos(3_600_000_000_000);
        assert_eq!(
            [prices.cost("a", hour), prices.cost("b", hour), prices.cost("c", hour)],
            [Some(2.0), Some(0.5), None]
        );
    }

    #[test]
    fn bad_prices_say_what_is_wrong() {
        let check = |text: &str, expected: &str| {
            let message = Prices::parse(text, "p.toml").unwrap_err().to_string();
            assert!(message.starts_with("p.toml: ") && message.contains(expected), "{message}");
        };
        check("gpu = 1", "gpu");
        check("currency = 'EUR'\n[gpu.a]\nper_hour = -1", "not negative");
        check("currency = 'EUR'\n[gpu.a]\nper_hour = nan", "not negative");
        check("currency = 'EUR'\n[gpu.a]\npurchase = 100", "hours_of_use");
        check("currency = 'EUR'\n[gpu.a]", "give per_hour");
        check("currency = 'EUR'\n[gpu.a]\nper_day = 1", "per_day");
    }
}
