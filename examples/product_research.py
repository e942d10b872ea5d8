"""Research a product: five searches at the same time, one dict with what they found.

Each search is an ordinary function around an ordinary HTTP client. They all run at once; a search that is
late or fails is None in the dict, and explained in ``results.failures``.
"""

import requests
from web_stand_in import open_web

from parallelkit import Retry, run_parallel


def amazon_rating(web, product):
    reviews = get(web, "amazon/reviews", product)
    return sum(review["stars"] for review in reviews) / len(reviews)


def reddit_threads(web, product):
    return [thread["title"] for thread in get(web, "reddit/search", product)]


def youtube_reviews(web, product):
    return get(web, "youtube/videos", product)


def best_price(web, product):
    return min(offer["price"] for offer in get(web, "prices/offers", product))


def expert_verdict(web, product):
    return get(web, "experts/verdict", product)["verdict"]


def get(web, path, product):
    response = requests.get(f"{web}/{path}", params={"q": product}, timeout=10)
    response.raise_for_status()
    return response.json()


with open_web() as web:
    results = run_parallel(
        {
            "rating": amazon_rating,
            "threads": reddit_threads,
            "videos": youtube_reviews,
            "price": best_price,
            "verdict": expert_verdict,
        },
        args=(web, "espresso machine"),  # the same input to every function
        timeout=1,
        retries=Retry(2, on=requests.HTTPError),
    )

print(results.to_dict(default=None))
for key, failure in results.failures.items():
    print(f"{key}: {failure.error}")
print(f"{results.summary.attempts} calls in {results.summary.wall:.1f} s")
