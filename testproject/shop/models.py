from django.db import models


class Order(models.Model):
    number = models.IntegerField(unique=True)
    shipped = models.BooleanField(default=False)

    def __str__(self) -> str:
        return f"order {self.number}"
